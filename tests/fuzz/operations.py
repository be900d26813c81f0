"""What a random model does to a value between its layers; ``x`` is (N, C, ...), and so is what is given back."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Operation = Callable[[Any, Tensor, list[Tensor]], Tensor]


def zero_row(x: Tensor) -> Tensor:
    x[:1].zero_()
    return x


def write_to_view(x: Tensor) -> Tensor:
    x.reshape(-1)[1:3].add_(1)
    return x


def write_to_part(x: Tensor) -> Tensor:
    x[:, :2].mul_(2)
    return x


def set_item(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = x[:, 1] * 2
    return y


def hooked(x: Tensor) -> Tensor:
    x = x * 1
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * 0.5)
    return x


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.abs().amax() + 1
    return x / scale


def moved(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        model.average.mul_(0.9).add_(x.detach().mean(), alpha=0.1)
    return x - model.average.clone()


def counted(model: Any, x: Tensor) -> Tensor:
    model.calls.add_(1)
    return x * (1 + 0.1 * model.calls.clone())


def unused(x: Tensor) -> Tensor:
    x.exp().sum()
    return x


def written_later(x: Tensor) -> Tensor:
    """Give a value into which a view that was taken before writes."""
    y = x * 1
    part = y[:, 1:]
    y = y + 0
    part.add_(3)
    return y


OPERATIONS: dict[str, Operation] = {
    "mul_": lambda model, x, kept: x.mul_(1.5),
    "clamp_": lambda model, x, kept: (x + 0).clamp_(-2, 2),
    "iadd": lambda model, x, kept: operator_iadd(x),
    "zero row": lambda model, x, kept: zero_row(x),
    "tanh": lambda model, x, kept: x.tanh(),
    "relu": lambda model, x, kept: x.relu(),
    "view": lambda model, x, kept: x.flatten(1).reshape(x.shape),
    "transpose": lambda model, x, kept: x.transpose(0, 1).contiguous().transpose(0, 1),
    "slice": lambda model, x, kept: torch.cat([x[:, 1:], x[:, :1]], 1),
    "chunk": lambda model, x, kept: torch.cat(x.chunk(2, 1)[::-1], 1),
    "write to view": lambda model, x, kept: write_to_view(x),
    "write to part": lambda model, x, kept: write_to_part(x),
    "written later": lambda model, x, kept: written_later(x),
    "setitem": lambda model, x, kept: set_item(x),
    "mask": lambda model, x, kept: x.masked_fill(x > 1, 0.5),
    "sort": lambda model, x, kept: x.sort(dim=1).values,
    "unbind": lambda model, x, kept: torch.stack(x.unbind(1), 1),
    "rows": lambda model, x, kept: torch.stack([row * index for index, row in enumerate(x, 1)]),
    "expand": lambda model, x, kept: x + x.mean(0, keepdim=True).expand_as(x),
    "norm": lambda model, x, kept: functional.normalize(x, dim=1),
    "softmax": lambda model, x, kept: x + x.softmax(1),
    "batch": lambda model, x, kept: x * x.shape[0] / (x.size(1) + len(x)),
    "contiguous": lambda model, x, kept: x if x.transpose(0, 1).is_contiguous() else x * 1.1,
    "training": lambda model, x, kept: x * 2 if model.training else x + 1,
    "dropout": lambda model, x, kept: functional.dropout(x, 0.5, model.training),
    "noise": lambda model, x, kept: x + torch.randn_like(x) if model.training else x,
    "detach": lambda model, x, kept: x + x.detach(),
    "no_grad": lambda model, x, kept: without_gradients(x),
    "hook": lambda model, x, kept: hooked(x),
    "buffer": lambda model, x, kept: moved(model, x),
    "counter": lambda model, x, kept: counted(model, x),
    "factor": lambda model, x, kept: x * model.factor,
    "table": lambda model, x, kept: x * model.table["scale"][1],
    "gain": lambda model, x, kept: x * model.gain,
    "flag": lambda model, x, kept: x + 1 if model.is_shifted else x - 1,
    "unused": lambda model, x, kept: unused(x),
    "tweak": lambda model, x, kept: model.tweak(x),
    "tweak by": lambda model, x, kept: model.tweak(x, by=0.5),
    "parted": lambda model, x, kept: torch.cat(model.parted(x), 1),
    "negated": lambda model, x, kept: model.negated(x),
}
SAFE_ON_INPUTS = ("transpose", "slice", "expand", "norm", "factor", "gain", "detach")


def operator_iadd(x: Tensor) -> Tensor:
    x += 0.25
    return x


def layers(family: str, width: int) -> dict[str, Callable[[], nn.Module]]:
    """List the layers that take and give values of a family: (N, C), (N, C, H, W) or (N, T, C)."""
    shared: dict[str, Callable[[], nn.Module]] = {
        "leaky_relu": lambda: nn.LeakyReLU(0.1),
        "leaky_relu_": lambda: nn.LeakyReLU(0.1, inplace=True),
        "dropout": lambda: nn.Dropout(0.5),
        "dropout_": lambda: nn.Dropout(0.5, inplace=True),
        "identity": lambda: nn.Identity(),
        "counts": lambda: Counts(),
        "adds_": lambda: AddsInPlace(),
        "gated": lambda: Gated(),
    }
    return shared | FAMILIES[family](width)


def of_rows(width: int) -> dict[str, Callable[[], nn.Module]]:
    return {
        "linear": lambda: nn.Linear(width, width),
        "batch_norm": lambda: nn.BatchNorm1d(width),
        "layer_norm": lambda: nn.LayerNorm(width),
        "group_norm": lambda: nn.GroupNorm(2, width),
        "mlp": lambda: nn.Sequential(nn.Linear(width, 3), nn.ReLU(inplace=True), nn.Linear(3, width)),
    }


def of_images(width: int) -> dict[str, Callable[[], nn.Module]]:
    return {
        "conv": lambda: nn.Conv2d(width, width, 3, padding=1),
        "depthwise": lambda: nn.Conv2d(width, width, 1, groups=width),
        "batch_norm": lambda: nn.BatchNorm2d(width),
        "group_norm": lambda: nn.GroupNorm(2, width),
        "pool": lambda: nn.AvgPool2d(3, 1, 1),
        "stage": lambda: nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
    }


def of_sequences(width: int) -> dict[str, Callable[[], nn.Module]]:
    return {
        "linear": lambda: nn.Linear(width, width),
        "layer_norm": lambda: nn.LayerNorm(width),
        "attention": lambda: Attention(width),
        "mlp": lambda: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()),
    }


class Counts(nn.Module):
    """Counts its calls in a buffer, and scales by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x / self.count.clone()


class AddsInPlace(nn.Module):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.bias)


class Gate(nn.Module):
    """Runs on values alone, and by them gives nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor | None:
        return (x * self.gain).tanh() if float(x.detach().mean()) > 0 else None


class Gated(nn.Module):
    """Goes by what its gate gives."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        value = self.gate(x)
        return x + 1 if value is None else value


class Attention(nn.Module):
    """Two heads over the second dimension; gives the values and the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.inside(x).chunk(3, 2))
        weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)
        return self.outside((weights @ value).transpose(1, 2).flatten(2)), weights


FAMILIES = {"rows": of_rows, "images": of_images, "sequences": of_sequences}
