"""Other sizes of the inputs, in which a recording is tried again: one by one, then together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LARGE = 8
Verdict = Literal["same", "guarded", "other", "refused"]  # guarded: a guard tells the programs apart
SizeClass = list[tuple[str, int]]  # the inputs, by name and dimension, whose sizes stand for one thing


@dataclass(frozen=True)
class Tries:
    """Tries of other sizes.

    Args:
        tried: Tells how the program of other tensors compares; "refused" where the model does not take them.
        on_values: Whether a try runs the model on values.
    """

    tried: Callable[[list[Tensor]], Verdict]
    on_values: bool

    def frozen(self, names: tuple[str, ...], tensors: list[Tensor]) -> SizeClass:
        """List the sizes for which the program holds only as they are.

        Each is first tried alone. Those that seem free are tried in further sizes together, which tells as much where
        the whole program is the same, and alone where it is not, or a guard ends the comparison.
        """

        def tried(sizes: list[tuple[SizeClass, int]]) -> Verdict:
            return self.tried(grown(names, tensors, sizes))

        found, left = list[SizeClass](), list[tuple[SizeClass, tuple[int, ...]]]()
        for places in size_classes(names, tensors):
            name, dim = places[0]
            size = tensors[names.index(name)].shape[dim]
            others = other_sizes(size, is_batch=dim == 0, on_values=self.on_values)
            outcomes = ((tried([(places, other)]), index) for index, other in enumerate(others))
            verdict, index = next(((one, index) for one, index in outcomes if one != "refused"), ("refused", 0))
            if verdict in ("same", "guarded"):
                left.append((places, others[index + 1 :]))
            else:
                found.append(places)
        found += _differing(left, tried)
        return [place for places in found for place in places]


def _differing(
    left: list[tuple[SizeClass, tuple[int, ...]]], tried: Callable[[list[tuple[SizeClass, int]]], Verdict]
) -> list[SizeClass]:
    """List what is not free after all, in sizes that were not tried yet."""
    while any(others for _, others in left):
        if tried([(places, others[0]) for places, others in left if others]) != "same":
            return [places for places, others in left if any(tried([(places, other)]) == "other" for other in others)]
        left = [(places, others[1:]) for places, others in left]
    return []


def size_classes(names: tuple[str, ...], tensors: list[Tensor]) -> list[SizeClass]:
    """Group the sizes of the inputs that stand for one thing: the batch, a length, the sides of an image."""
    groups: dict[tuple[bool, int], SizeClass] = {}
    for name, tensor in zip(names, tensors, strict=True):
        for dim, size in enumerate(tensor.shape):
            groups.setdefault((dim == 0, size), []).append((name, dim))
    return list(groups.values())


def other_sizes(size: int, *, is_batch: bool, on_values: bool) -> tuple[int, ...]:
    """Give the sizes to try in place of ``size``: an odd one, and one that what divides ``size`` divides too.

    A batch is tried smaller too, and, where no real values are needed for it, much larger.
    """
    larger = (size + 1, 2 * size) if size > LARGE else (2 * size + 1, 2 * size)
    more = (size // 2, *(() if on_values else (64 * size,))) if is_batch else ()
    return tuple(other for other in (*larger, *more) if other)


def grown(names: tuple[str, ...], tensors: list[Tensor], sizes: list[tuple[SizeClass, int]]) -> list[Tensor]:
    """Give the tensors other sizes in the given dimensions; their values are repeated, never invented."""
    larger = []
    for name, tensor in zip(names, tensors, strict=True):
        for dim, size in [(dim, size) for places, size in sizes for owner, dim in places if owner == name]:
            rows = torch.arange(size, device=tensor.device) % tensor.shape[dim]
            tensor = tensor.detach().index_select(dim, rows)
        larger.append(tensor)
    return larger
