"""Losses and connectors that take whatever a point gives."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def numbers_in(value: Any) -> list[Tensor]:
    """List the tensors with fractions in a value."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    held = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in held for tensor in numbers_in(part)]


def digest(value: Any) -> Tensor:
    """Make one number of all tensors in a value; every element and its place count."""
    tensors = numbers_in(value)
    weights = [torch.arange(tensor.numel(), dtype=tensor.dtype).cos().reshape(tensor.shape) for tensor in tensors]
    terms = [(tensor.tanh() * weight).mean() for tensor, weight in zip(tensors, weights, strict=True)]
    return torch.stack([term * (index + 1) for index, term in enumerate(terms)]).sum()


class Compare(nn.Module):
    """The squared distance of two digests; learns how to scale the student's."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight, self.gain = loss_weight, nn.Parameter(torch.ones(()))

    def forward(self, student: Any, teacher: Any = None) -> Tensor:
        target = 0.5 if teacher is None else digest(teacher)
        return self.loss_weight * (self.gain * digest(student) - target).square()


class Labelled(nn.Module):
    """Looks at labels of the call too."""

    def forward(self, student: Any, labels: Tensor) -> Tensor:
        return digest(student) * (labels + 1.0).mean()


class Flat(nn.Module):
    """A connector: all tensors of a value in one row, normalised by a batch norm, with some dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1), nn.Dropout(0.3)

    def forward(self, value: Any) -> tuple[Tensor, Tensor]:
        tensors = numbers_in(value)
        row = torch.cat([*(tensor.flatten() for tensor in tensors), tensors[0].new_ones(1)])
        return self.drop(self.norm(row.unsqueeze(1))), row
