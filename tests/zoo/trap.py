"""What the traps have in common: two layers with something nasty between them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.model import Call, Model

WIDTH = 8
BY_VALUE = r"the value of a tensor decides what is run at .*name the function or method"
BY_DRAW = r"random numbers gives at .* would be the same at every step; name the function"
CHANGES = r"reads and changes|something else at the second call"


LAYERS = {name: {"type": "ModuleOutputs", "source": name} for name in ("first", "last")}


class Net(nn.Module):
    """Two layers, and between them what a trap does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.between(self.first(x)))

    def between(self, x: Tensor) -> Tensor:
        return x.relu()


def rows(batch: int, seed: int = 1, **constant: Any) -> Call:
    """A batch of rows."""
    return (torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(seed)),), constant


def trap(
    kind: Callable[[], nn.Module],
    inputs: Callable[..., Call] = rows,
    *,
    further: dict[str, Callable[[], Call]] | None = None,
    **given: Any,
) -> Model:
    """Describe a trap; it is called what its class is called."""
    given = {"recorders": LAYERS} | given
    others = {"batch of 5": partial(inputs, 5, seed=2), "one row": partial(inputs, 1, seed=3)}
    return Model(
        name=f"trap/{kind.__name__}",
        family="traps",
        build=kind,
        inputs=inputs,
        further=others | dict(further or {}),
        **given,
    )
