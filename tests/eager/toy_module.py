"""What the documented examples use: functions, methods and models to record and to deliver."""

import math as M
import random
from functools import partialmethod
from typing import Any

import torch
from torch import Tensor, nn

NUMBER = 3


def toy_func() -> int:
    return random.randint(0, 1000000)


def count(values: list[int]) -> int:
    values.append(len(values))
    return len(values)


def scale(x: Any, factor: Any = 2, *, shift: Any = 0, **more: Any) -> Any:
    return x * factor + shift + sum(more.values())


def shift_in_place(x: Tensor) -> Tensor:
    return x.add_(1)


def countdown(number: int) -> int:
    return number if number == 0 else countdown(number - 1) + 1


def fail() -> None:
    raise RuntimeError("no")


class Toy:
    def toy_func(self) -> int:
        return random.randint(0, 1000000)

    def double(self, x: Any, factor: Any = 2) -> Any:
        return x * factor

    twice = partialmethod(double, factor=2)

    @staticmethod
    def static(x: Any) -> Any:
        return x + 1

    @classmethod
    def named(cls, x: Any) -> tuple[str, Any]:
        return cls.__name__, x

    @property
    def size(self) -> int:
        return 1

    class Inner:
        def triple(self, x: Any) -> Any:
            return x * 3


class SubToy(Toy):
    """Inherits everything."""


class BatchMixup:
    """Mix images with a random weight, as the documentation's augmentation does."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        weight, order = torch.rand(()), torch.randperm(len(images))
        return images * weight + images[order] * (1 - weight), labels * weight + labels[order] * (1 - weight)


class TwiceModel(nn.Module):
    """Call one convolution twice; ``alias`` is a second name of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 1)
        self.conv2 = nn.Conv2d(1, 1, 1)
        self.alias = self.conv1

    def forward(self, x: Tensor) -> Tensor:
        x1: Tensor = self.conv1(x)
        x2: Tensor = self.conv1(x + 1)
        return self.conv2(x1 + x2)  # type: ignore[no-any-return]


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 1)
        self.conv2 = nn.Conv2d(1, 1, 1)
        self.toy = Toy()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.toy.toy_func()  # type: ignore[no-any-return]


class Mask(nn.Module):
    def forward(self, x: Tensor | None = None, mask: Tensor | float = 1.0) -> dict[str, Any]:
        return {"x": x, "mask": mask}


class Shift(nn.Module):
    """Change the input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


def root(x: float) -> float:
    return M.sqrt(x)
