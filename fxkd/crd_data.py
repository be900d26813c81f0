"""The data side of contrastive distillation: each sample with its index and with those of samples of other classes."""

from collections.abc import Iterable, Sequence, Sized
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fxkd.errors import SpecError, did_you_mean

MODES = ("exact", "random")


class Indexed(Sized, Protocol):
    """What a data set must have: a length, and samples by index."""

    def __getitem__(self, index: int, /) -> Any: ...


class CRDDataset(Dataset[tuple[Any, Tensor, Tensor]]):
    """Give each sample of a data set as ``(sample, index, contrast indices)``, which ``CRDLoss`` learns from.

    The contrast indices, of shape (neg_num + 1,), are first a positive one and then ``neg_num`` of other classes: drawn
    anew each time, by torch's generator, and each once where there are as many.

    Args:
        dataset: The training data: a length, and samples by index.
        neg_num: How many negatives; ``CRDLoss`` needs the same number.
        percent: Under 1, only this part of each class's negatives is ever drawn; it is chosen once, here.
        sample_mode: The positive is the sample itself (``"exact"``), or any one of its class (``"random"``).
        num_classes: How many classes there are; by default one more than the largest label.
        labels: The class of each sample; by default what ``dataset`` has as ``targets`` or ``labels``.

    Raises:
        SpecError: An option has a value it cannot have, there are no labels, or a class has no negatives.

    >>> data = CRDDataset([10.0, 11.0, 12.0], neg_num=2, labels=[0, 1, 1])
    >>> sample, index, contrast = data[0]
    >>> sample, index, contrast.sort().values
    (10.0, tensor(0), tensor([0, 1, 2]))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=3)
    >>> [tuple(part.shape) for part in next(iter(loader))]
    [(3,), (3,), (3, 3)]
    """

    def __init__(
        self,
        dataset: Indexed,
        neg_num: int,
        percent: float = 1.0,
        sample_mode: str = "exact",
        num_classes: int | None = None,
        labels: Iterable[int] | Tensor | None = None,
    ) -> None:
        self.dataset = dataset
        self.neg_num = neg_num
        self.percent = percent
        self.sample_mode = sample_mode
        _refuse_options(neg_num, percent, sample_mode)
        self.labels = _labels_of(dataset, labels)
        self.num_classes = _classes(self.labels, num_classes)
        self._by_class = self.labels.argsort(
            stable=True
        )  # the members of class c lie from _starts[c] to _starts[c + 1]
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        self._starts: list[int] = [0, *counts.cumsum(0).tolist()]
        self._kept = [self._keep(label) for label in range(self.num_classes)] if percent < 1 else None
        if int(counts.max()) == len(self.labels):
            raise SpecError([f"CRDDataset: all {len(self.labels)} samples have one class: nothing to contrast with"])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Tensor, Tensor]:
        index = range(len(self))[index]
        label = int(self.labels[index])
        positive = self._positive(index, label)
        return self.dataset[index], torch.tensor(index), torch.cat([positive.reshape(1), self._negatives(label)])

    def _positive(self, index: int, label: int) -> Tensor:
        if self.sample_mode == "exact":
            return torch.tensor(index)
        place = torch.randint(self._starts[label], self._starts[label + 1], ())
        return self._by_class[place]

    def _negatives(self, label: int) -> Tensor:
        """Draw among those of other classes: by their place in the order by class, from which the own class is cut."""
        kept = self._kept[label] if self._kept is not None else None
        count = self._others(label) if kept is None else len(kept)
        enough = count >= self.neg_num
        drawn = torch.randperm(count)[: self.neg_num] if enough else torch.randint(count, (self.neg_num,))
        places = drawn if kept is None else kept[drawn]
        start, end = self._starts[label], self._starts[label + 1]
        return self._by_class[torch.where(places < start, places, places + end - start)]

    def _others(self, label: int) -> int:
        return len(self) - (self._starts[label + 1] - self._starts[label])

    def _keep(self, label: int) -> Tensor:
        count = self._others(label)
        return torch.randperm(count)[: max(int(count * self.percent), 1)]


def _refuse_options(neg_num: object, percent: object, sample_mode: object) -> None:
    problems = []
    if not isinstance(neg_num, int) or isinstance(neg_num, bool) or neg_num < 1:
        problems.append(f"CRDDataset: neg_num is {neg_num!r}; it must be a whole number above 0")
    if not isinstance(percent, (int, float)) or not 0 < percent <= 1:
        problems.append(f"CRDDataset: percent is {percent!r}; it must be above 0 and at most 1")
    if sample_mode not in MODES:
        near = did_you_mean(sample_mode, MODES)
        problems.append(f"CRDDataset: sample_mode is {sample_mode!r}; it can be 'exact', 'random'.{near}")
    if problems:
        raise SpecError(problems)


def _labels_of(dataset: Indexed, labels: Iterable[int] | Tensor | None) -> Tensor:
    found = next((given for name in ("targets", "labels") if (given := getattr(dataset, name, None)) is not None), None)
    given = found if labels is None else labels
    if given is None:
        name = type(dataset).__name__
        raise SpecError([f"CRDDataset: {name} has neither 'targets' nor 'labels'; give labels=, one class a sample"])
    result = torch.as_tensor(given if isinstance(given, (Tensor, Sequence)) else list(cast(Iterable[int], given)))
    if result.shape != (len(dataset),) or result.is_floating_point() or not len(dataset) or int(result.min()) < 0:
        form = f"{result.dtype} of shape {tuple(result.shape)}"
        raise SpecError([f"CRDDataset: the labels are {form}; {len(dataset)} samples have one class from 0 up each"])
    return result.long()


def _classes(labels: Tensor, num_classes: int | None) -> int:
    needed = int(labels.max()) + 1
    if num_classes is not None and num_classes < needed:
        raise SpecError([f"CRDDataset: num_classes is {num_classes!r}, but there is a label {needed - 1}"])
    return num_classes or needed
