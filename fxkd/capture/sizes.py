"""Other sizes of the inputs, in which a recording is tried again: one by one, then together."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LARGE = 8
SizeClass = list[tuple[str, int]]  # the inputs, by name and dimension, whose sizes stand for one thing


@dataclass(frozen=True)
class Tries:
    """Tries of other sizes.

    Args:
        is_same: Tells whether the program is the same on other tensors; None where the model does not take them.
        on_values: Whether a try runs the model on values.
    """

    is_same: Callable[[list[Tensor]], bool | None]
    on_values: bool

    def frozen(self, names: tuple[str, ...], tensors: list[Tensor]) -> SizeClass:
        """List the sizes for which the program holds only as they are.

        Each is first tried alone. Those that seem free are tried in further sizes together, which tells as much where
        nothing differs, and alone where something does.
        """

        def same(sizes: list[tuple[SizeClass, int]]) -> bool | None:
            return self.is_same(grown(names, tensors, sizes))

        found, left = list[SizeClass](), list[tuple[SizeClass, tuple[int, ...]]]()
        for places in size_classes(names, tensors):
            name, dim = places[0]
            size = tensors[names.index(name)].shape[dim]
            others = other_sizes(size, is_batch=dim == 0, on_values=self.on_values)
            outcomes = ((same([(places, other)]), index) for index, other in enumerate(others))
            taken = next(((outcome, index) for outcome, index in outcomes if outcome is not None), (None, 0))
            if taken[0]:
                left.append((places, others[taken[1] + 1 :]))
            else:
                found.append(places)
        found += _differing(left, same)
        return [place for places in found for place in places]


def _differing(
    left: list[tuple[SizeClass, tuple[int, ...]]], same: Callable[[list[tuple[SizeClass, int]]], bool | None]
) -> list[SizeClass]:
    """List what is not free after all, in sizes that were not tried yet."""
    while any(others for _, others in left):
        if not same([(places, others[0]) for places, others in left if others]):
            return [places for places, others in left if any(same([(places, other)]) is False for other in others)]
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
