"""Traps: forwards that decide, look up, draw, or count."""

import math
import random
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.zoo.trap import BY_DRAW, BY_VALUE, CHANGES, WIDTH, Net, rows, trap


class SizeBranch(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.relu() if x.shape[0] > 3 else x.tanh()


class SizeLookUp(Net):
    def between(self, x: Tensor) -> Tensor:
        return x * [1.0, 2.0, 3.0, 4.0][x.shape[0] % 4] * math.log(len(x) + 1)


class SizeInText(Net):
    def between(self, x: Tensor) -> Tensor:
        return x * len(f"{x.shape[0]:x<{x.shape[0]}}")


class SizeInCache(Net):
    def between(self, x: Tensor) -> Tensor:
        return x + steps(x.shape[0])[:, None]


@lru_cache
def steps(count: int) -> Tensor:
    return torch.arange(float(count))


class SizeCaught(Net):
    """A shape that does not fit takes another way."""

    def between(self, x: Tensor) -> Tensor:
        try:
            return x * x.reshape(2, -1).mean()
        except RuntimeError:
            return x * 2


class RowByRow(Net):
    def between(self, x: Tensor) -> Tensor:
        return torch.stack([row * (index + 1) for index, row in enumerate(x)])


class WhileLarge(Net):
    def between(self, x: Tensor) -> Tensor:
        left = x.numel()
        while left > WIDTH:
            x, left = x.tanh(), left // 2
        return x


class ValueBranch(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.relu() if x.mean() > 0 else x.tanh()


class ValueAsNumber(Net):
    def between(self, x: Tensor) -> Tensor:
        return x * float(x.detach().abs().max())


class ValueAsSize(Net):
    def between(self, x: Tensor) -> Tensor:
        return x + x[x > 0].mean()


class ValueAsIndex(Net):
    def between(self, x: Tensor) -> Tensor:
        return x[:, int(x.detach().sum(0).argmax()) :].mean(1, keepdim=True) + x


class ValueInNumpy(Net):
    def between(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(x.detach().numpy() * 2)


class DrawsInPython(Net):
    def between(self, x: Tensor) -> Tensor:
        return x * random.random()


class DrawsInNumpy(Net):
    def between(self, x: Tensor) -> Tensor:
        import numpy

        return x * numpy.random.beta(1.0, 1.0)


class DropsLayers(Net):
    def between(self, x: Tensor) -> Tensor:
        return x if self.training and random.random() < 0.5 else x.relu()


class DrawsByName(Net):
    """The same, in a method that is named."""

    def between(self, x: Tensor) -> Tensor:
        return x * self.drawn()

    def drawn(self) -> float:
        return random.random() + 0.5


class DrawsInTorch(Net):
    def between(self, x: Tensor) -> Tensor:
        return torch.dropout(x * torch.rand_like(x) + torch.randn(x.shape[0], 1), 0.3, self.training)


class Seeds(Net):
    def between(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return x * torch.rand_like(x)


class Counts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def between(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class CountsForNobody(Counts):
    def between(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu()


class ReplacesBuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def between(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class MovesBuffer(ReplacesBuffer):
    def between(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return x - self.mean


class Remembers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.past: list[Tensor] = []

    def between(self, x: Tensor) -> Tensor:
        self.past.append(x.detach().mean())
        return x + self.past[0]


class GoesByArgument(Net):
    def forward(self, x: Tensor, how: str = "relu", scale: float | None = None) -> Any:
        x = getattr(self.first(x), how)()
        return self.last(x if scale is None else x * scale)


class GoesByGradient(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.relu() if x.requires_grad and torch.is_grad_enabled() else x * 0


DRAWN = {
    "first": {"type": "ModuleOutputs", "source": "first"},
    "drawn": {"type": "MethodOutputs", "source": f"{__name__}.DrawsByName.drawn"},
}
NO_NUMPY = r"while it ran on tensors without values: .*name the function"

MODELS = [
    trap(SizeBranch),
    trap(SizeLookUp),
    trap(SizeInText),
    trap(SizeInCache),
    trap(SizeCaught),
    trap(RowByRow),
    trap(WhileLarge),
    trap(ValueBranch, expected="refused", reason=BY_VALUE),
    trap(ValueAsNumber, expected="refused", reason=BY_VALUE),
    trap(ValueAsSize, expected="refused", reason=BY_VALUE),
    trap(ValueAsIndex, expected="refused", reason=BY_VALUE),
    trap(ValueInNumpy, expected="refused", reason=NO_NUMPY),
    trap(DrawsInPython, expected="refused", reason=BY_DRAW),
    trap(DrawsInNumpy, expected="refused", reason=BY_DRAW),
    trap(DropsLayers, modes=("train",), expected="refused", reason=BY_DRAW),
    trap(DrawsByName, recorders=DRAWN),
    trap(DrawsInTorch),
    trap(Seeds, expected="refused", reason=r"manual_seed is called at .*would not do that at every step"),
    trap(Counts, expected="refused", reason=CHANGES),
    trap(CountsForNobody),
    trap(ReplacesBuffer, expected="refused", reason="replaces the buffer 'mean'"),
    trap(MovesBuffer),
    trap(Remembers, expected="refused", reason="keeps something for its next call"),
    trap(
        GoesByArgument,
        further={
            "another word": partial(rows, 2, how="tanh"),
            "a number": partial(rows, 2, scale=0.5),
            "another number": partial(rows, 3, scale=0.25),
        },
    ),
    trap(GoesByGradient),
]
