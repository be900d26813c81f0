"""Random models: a recipe says what is called in which order, ``Net`` does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.fuzz import functions
from tests.fuzz.operations import OPERATIONS, layers

CLASSES = 4
INPUTS = {"rows": (5,), "images": (3, 3, 3), "sequences": (5, 5)}  # what one sample is


@dataclass(frozen=True)
class Recipe:
    """What a block does: its steps in order, and in what form it gives the last value."""

    steps: tuple[tuple[Any, ...], ...]
    gives: str = "tensor"


@dataclass(frozen=True)
class NetRecipe:
    """A whole model."""

    family: str
    width: int
    body: Recipe
    gives: str = "logits"
    first: str | None = None  # an operation on the input itself
    seed: int = 0

    def build(self) -> "Net":
        """Make the model; every call gives equal weights."""
        torch.manual_seed(self.seed)
        return Net(self)


@dataclass
class Features:
    """Two values of a block or a model."""

    main: Tensor
    more: Any = None


class Block(nn.Module):
    """Does its steps one after another; the first tensor of what a part gives goes on."""

    def __init__(self, recipe: Recipe, family: str, width: int) -> None:
        super().__init__()
        self.steps, self.gives = recipe.steps, recipe.gives
        made = layers(family, width)
        for index, (kind, *rest) in enumerate(recipe.steps):
            if kind == "layer":
                self.add_module(f"s{index}", made[rest[0]]())
            if kind == "block":
                self.add_module(f"s{index}", Block(rest[0], family, width))
        self.gain = nn.Parameter(torch.full((1,), 0.8))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("calls", torch.zeros(()))
        self.factor, self.table, self.is_shifted = 0.9, {"scale": [1.0, 0.7]}, True

    def forward(self, x: Tensor) -> Any:
        kept = [x]
        for index, step in enumerate(self.steps):
            x = main(self.take(index, step, x, kept))
            kept.append(x)
        return FORMS[self.gives](x, kept)

    def take(self, index: int, step: tuple[Any, ...], x: Tensor, kept: list[Tensor]) -> Any:
        """Do one step."""
        match step:
            case ("layer", _) | ("block", _):
                return self.get_submodule(f"s{index}")(x)
            case ("again", which):
                parts = list(self.children())
                return parts[which % len(parts)](x) if parts else x
            case ("op", name):
                return OPERATIONS[name](self, x, kept)
            case ("call", name):
                return functions.CALLS[name](functions, x, kept)
            case ("branch", small, large):
                return OPERATIONS[large if x.shape[0] > 3 else small](self, x, kept)
            case ("residual", which):
                return x + kept[which % len(kept)]
            case ("write", which):
                kept[which % len(kept)].mul_(0.5)
                return x + 1
        raise ValueError(f"no step {step!r}")

    def tweak(self, x: Tensor, by: float = 0.25) -> Tensor:
        return x + by * x.tanh()

    def parted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1] * 1.5, x[:, 1:]

    @staticmethod
    def negated(x: Tensor) -> Tensor:
        return -x


class Net(nn.Module):
    """A stem, a block and a head."""

    def __init__(self, recipe: NetRecipe) -> None:
        super().__init__()
        self.family, self.gives, self.first = recipe.family, recipe.gives, recipe.first
        channels = INPUTS[recipe.family][-1 if recipe.family == "sequences" else 0]
        is_image = recipe.family == "images"
        self.stem = nn.Conv2d(channels, recipe.width, 1) if is_image else nn.Linear(channels, recipe.width)
        self.body = Block(recipe.body, recipe.family, recipe.width)
        self.head = nn.Linear(recipe.width, CLASSES)

    def forward(self, x: Tensor) -> Any:
        if self.first is not None:
            x = OPERATIONS[self.first](self.body, x, [x])
        body = self.body(self.told(self.stem(x)))
        x = main(body)
        x = x.mean((2, 3)) if self.family == "images" else x.mean(1) if self.family == "sequences" else x
        logits = self.head(x)
        return OUTPUTS[self.gives](logits, body)

    def told(self, x: Tensor) -> Tensor:
        """Do what shows in every example if modes, draws or attributes are taken for others."""
        x = functional.dropout(x, 0.1, self.training) * self.body.factor
        return x + (0.1 if self.body.is_shifted else -0.1) * self.body.table["scale"][1]


def main(value: Any) -> Tensor:
    """Give the first tensor of a value."""
    while not isinstance(value, Tensor):
        held = value.main if isinstance(value, Features) else value
        value = next(iter(held.values())) if isinstance(held, Mapping) else held if held is not value else held[0]
    return value


def nested(x: Tensor, kept: list[Tensor]) -> Any:
    return {"first": (x, [kept[0] * 1, x[:, :1]]), "count": len(kept), "features": Features(x * 2, {"a": kept[-1]})}


FORMS = {
    "tensor": lambda x, kept: x,
    "tuple": lambda x, kept: (x, kept[0] + 1),
    "list": lambda x, kept: [x, x[:, :2], kept[-1]],
    "dict": lambda x, kept: {"main": x, "sum": x.sum(1)},
    "dataclass": lambda x, kept: Features(x, kept[0] * 2),
    "nested": nested,
}
OUTPUTS = {
    "logits": lambda logits, body: logits,
    "pair": lambda logits, body: (logits, body),
    "dict": lambda logits, body: {"logits": logits, "body": body},
    "loss": lambda logits, body: {"loss": logits.square().mean(), "logits": logits},
    "dataclass": lambda logits, body: Features(logits, body),
}
