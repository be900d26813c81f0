"""Other sizes of the inputs, in which a recording is tried again: together where all seem free, else one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LARGE = 8
Verdict = Literal["same", "guarded", "other", "refused"]  # guarded: a guard tells the programs apart
SizeClass = list[tuple[str, int]]  # the inputs, by name and dimension, whose sizes stand for one thing
Others = tuple[int, ...]  # the sizes to try instead


@dataclass
class Tries:
    """Tries of other sizes.

    Args:
        names: The inputs.
        tensors: What they are in the recording.
        tried: Tells how the program of other tensors compares; "refused" where the model does not take them.
        on_values: Whether a try runs the model on values.
        with_other_rows: Whether the program was the same where a try had other rows in its batch; the tries tell.
    """

    names: tuple[str, ...]
    tensors: list[Tensor]
    tried: Callable[[list[Tensor]], Verdict]
    on_values: bool
    with_other_rows: bool = False

    def frozen(self) -> SizeClass:
        """List the sizes for which the program holds only as they are.

        Those that are probably free are tried together first, which tells as much where the whole program is the same.
        Where it is not, or a guard ends the comparison, each is tried alone, and the free ones together in further
        sizes.
        """
        every = [(places, self._others(places)) for places in size_classes(self.names, self.tensors)]
        together = [(places, others) for places, others in every if not self._is_features(places)]
        if len(together) > 1 and self._try([(places, others[0]) for places, others in together]) == "same":
            left, alone = [(places, others[1:]) for places, others in together], [p for p in every if p not in together]
        else:
            left, alone = [], every
        found = list[SizeClass]()
        for places, others in alone:
            untried = self._untried(places, others)
            if untried is None:
                found.append(places)
            else:
                left.append((places, untried))
        found += self._differing(left)
        return [place for places in found for place in places]

    def _try(self, sizes: list[tuple[SizeClass, int]]) -> Verdict:
        verdict = self.tried(grown(self.names, self.tensors, sizes))
        has_other_rows = any(dim == 0 for places, _ in sizes for _, dim in places)
        self.with_other_rows |= has_other_rows and verdict == "same"
        return verdict

    def _untried(self, places: SizeClass, others: Others) -> Others | None:
        """Try sizes alone up to the first that the model takes; give those behind it, or None if it is another."""
        for index, other in enumerate(others):
            verdict = self._try([(places, other)])
            if verdict != "refused":
                return others[index + 1 :] if verdict in ("same", "guarded") else None
        return None

    def _differing(self, left: list[tuple[SizeClass, Others]]) -> list[SizeClass]:
        """List what is not free after all, in sizes that were not tried yet."""
        while any(others for _, others in left):
            if self._try([(places, others[0]) for places, others in left if others]) != "same":
                return [
                    places for places, others in left if any(self._try([(places, one)]) == "other" for one in others)
                ]
            left = [(places, others[1:]) for places, others in left]
        return []

    def _others(self, places: SizeClass) -> Others:
        name, dim = places[0]
        size = self.tensors[self.names.index(name)].shape[dim]
        return other_sizes(size, is_batch=dim == 0, on_values=self.on_values)

    def _is_features(self, places: SizeClass) -> bool:
        """Tell whether weights probably decide a size, of features or channels: (N, C), (N, T, C), (N, C, ...)."""
        held = [(self.tensors[self.names.index(name)], dim) for name, dim in places]
        return any(tensor.is_floating_point() and dim == (2 if tensor.dim() == 3 else 1) for tensor, dim in held)


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
    """Give the tensors other sizes in the given dimensions; their values are repeated, never invented.

    Rows come in another order, so that what depends on the values of one row differs.
    """
    larger = []
    for name, tensor in zip(names, tensors, strict=True):
        for dim, size in [(dim, size) for places, size in sizes for owner, dim in places if owner == name]:
            rows = torch.arange(size, device=tensor.device) + (dim == 0)
            tensor = tensor.detach().index_select(dim, rows % tensor.shape[dim])
        larger.append(tensor)
    return larger
