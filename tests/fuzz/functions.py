"""Functions that random models look up here at each call, so that a spec can name them."""

import random
from typing import Any

import torch
from torch import Tensor


def scaled(x: Tensor, factor: float = 1.25, *, shift: float = 0.0) -> Tensor:
    return x * factor + shift


def mixed(x: Tensor, other: Tensor) -> Tensor:
    return 0.75 * x + 0.25 * other


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2, 1)
    return first, second


def summary(x: Tensor) -> dict[str, Any]:
    return {"mean": x.mean(1), "rest": [x - 1, x.amax(1)]}


def bumped_(x: Tensor) -> Tensor:
    return x.add_(0.5)


def viewed(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def outer(x: Tensor) -> Tensor:
    return scaled(x, 0.5) + scaled(x, shift=0.25)


def drawn(x: Tensor) -> Tensor:
    """Draw from Python's generator: a graph can hold it only where a spec names it."""
    return x * (0.5 + random.random())


def noisy(x: Tensor, training: bool) -> Tensor:
    return x + 0.1 * torch.randn_like(x) if training else x


CALLS: dict[str, Any] = {
    "scaled": lambda functions, x, kept: functions.scaled(x),
    "scaled by": lambda functions, x, kept: functions.scaled(x, shift=0.5, factor=0.75),
    "mixed": lambda functions, x, kept: functions.mixed(x, kept[0]),
    "halves": lambda functions, x, kept: torch.cat(functions.halves(x)[::-1], 1),
    "summary": lambda functions, x, kept: functions.summary(x)["rest"][0],
    "bumped_": lambda functions, x, kept: functions.bumped_(x),
    "viewed": lambda functions, x, kept: functions.viewed(x).transpose(0, 1),
    "outer": lambda functions, x, kept: functions.outer(x),
    "drawn": lambda functions, x, kept: functions.drawn(x),
}
NAMES = ("scaled", "mixed", "halves", "summary", "bumped_", "viewed", "outer", "drawn")
PATH = __name__
