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
Left = tuple[SizeClass, Others]  # what is free so far, and what is to be tried yet


@dataclass
class Tries:
    """Tries of other sizes.

    Args:
        names: The inputs.
        tensors: What they are in the recording.
        tried: Tells how the program of other tensors compares; "refused" where the model does not take them.
        on_values: Whether a try runs the model on values.
    """

    names: tuple[str, ...]
    tensors: list[Tensor]
    tried: Callable[[list[Tensor]], Verdict]
    on_values: bool

    def frozen(self) -> SizeClass:
        """List the sizes for which the program holds only as they are.

        Those that are probably free are tried together first, which tells as much where the whole program is the same.
        Where it is not, or a guard ends the comparison, each is tried alone, and the free ones together in further
        sizes.
        """
        every = size_classes(self.names, self.tensors)
        together = [places for places in every if not self._is_features(places)]
        first = [(places, self._others(places)[0]) for places in together]
        is_same = len(first) > 1 and self._try(first) == "same"
        free, guarded, found = list[Left](), list[Left](), list[SizeClass]()
        for places in every:
            verdict, size = ("same", self._others(places)[0]) if is_same and places in together else self._alone(places)
            further = self._further(places, size) if verdict in ("same", "guarded") else ()
            if verdict == "same":
                free.append((places, further))
            elif verdict == "guarded":
                guarded.append((places, tuple(dict.fromkeys((*further, *self._near(places, size))))))
            else:
                found.append(places)
        found += [*self._differing(free), *filter(None, map(self._differs, guarded))]
        return [place for places in found for place in places]

    def _try(self, sizes: list[tuple[SizeClass, int]]) -> Verdict:
        return self.tried(grown(self.names, self.tensors, sizes))

    def _alone(self, places: SizeClass) -> tuple[Verdict, int]:
        """Try sizes alone up to the first that the model takes: tell how the program of that one compares."""
        for other in self._others(places):
            verdict = self._try([(places, other)])
            if verdict != "refused":
                return verdict, other
        return "refused", 0

    def _differing(self, left: list[Left]) -> list[SizeClass]:
        """List what is not free after all, in sizes that were not tried yet."""
        while any(others for _, others in left):
            if self._try([(places, others[0]) for places, others in left if others]) != "same":
                return [places for places, others in left if self._differs((places, others))]
            left = [(places, others[1:]) for places, others in left]
        return []

    def _differs(self, left: Left) -> SizeClass | None:
        """Give what is not free after all when it is tried alone."""
        places, others = left
        return places if any(self._try([(places, one)]) == "other" for one in others) else None

    def _size(self, places: SizeClass) -> int:
        name, dim = places[0]
        return self.tensors[self.names.index(name)].shape[dim]

    def _others(self, places: SizeClass) -> Others:
        """Give the sizes to try in place of one: an odd one, and one that what divides the size divides too."""
        size, is_batch = self._size(places), places[0][1] == 0
        return (size + 1 if size > LARGE and not is_batch else 2 * size + 1, 2 * size)

    def _further(self, places: SizeClass, taken: int) -> Others:
        """Give more sizes to try: of a batch a smaller one, an even one, and without real values a much larger one."""
        size, is_batch = self._size(places), places[0][1] == 0
        if not is_batch:
            others = self._others(places)
            return others[others.index(taken) + 1 :]
        even = 2 * size if size % 2 and taken % 2 else 0
        return tuple(other for other in (size // 2, even if self.on_values else 64 * size) if other)

    def _near(self, places: SizeClass, taken: int) -> Others:
        """Give sizes that probably lie on the same side of a guard."""
        size = self._size(places)
        return tuple(other for other in (size + 1, size - 1) if other and other != taken)

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


def grown(names: tuple[str, ...], tensors: list[Tensor], sizes: list[tuple[SizeClass, int]]) -> list[Tensor]:
    """Give the tensors other sizes in the given dimensions; their values are repeated, never invented."""
    larger = []
    for name, tensor in zip(names, tensors, strict=True):
        for dim, size in [(dim, size) for places, size in sizes for owner, dim in places if owner == name]:
            rows = torch.arange(size, device=tensor.device) % tensor.shape[dim]
            tensor = tensor.detach().index_select(dim, rows)
        larger.append(tensor)
    return larger
