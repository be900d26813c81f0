"""How far two tensors are apart, counted so that equal infinities and not-a-numbers are 0 apart."""

import torch
from torch import Tensor


def apart(one: Tensor, other: Tensor) -> float:
    """Give the largest absolute difference; NaN if one is not-a-number where the other is a number.

    >>> apart(torch.tensor([1.0, float("inf")]), torch.tensor([1.5, float("inf")]))
    0.5
    """
    left, right = _exact(one), _exact(other)
    differs = ~((left == right) | (left.isnan() & right.isnan()))
    return float((left - right)[differs].abs().max()) if differs.any() else 0.0


def largest(value: Tensor) -> float:
    """Give the largest finite absolute value; 0 where there is none.

    >>> largest(torch.tensor([-3.0, float("nan")]))
    3.0
    """
    size = _exact(value).abs()
    finite = size[size.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def _exact(value: Tensor) -> Tensor:
    value = value.detach() if value.layout is torch.strided else value.detach().to_dense()
    return value.to(torch.complex128 if value.is_complex() else torch.float64).flatten()
