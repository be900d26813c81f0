"""Operations whose kernel for tensors without values takes less than the one that computes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _grouped_mm(rows: Tensor, weights: Tensor, *_: Any, **__: Any) -> Tensor:
    """Multiply by one weight: on a CPU torch takes any type of number, without values bfloat16 alone."""
    if rows.dim() != 2 or weights.dim() != 3:
        raise NotImplementedError
    return rows @ weights[0]


SHAPES: dict[Any, Callable[..., Tensor]] = {getattr(torch, "_grouped_mm", None): _grouped_mm}


def without_values(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function of torch on tensors without values."""
    shape = SHAPES.get(function)
    if shape is None:
        return function(*args, **kwargs)
    try:
        return function(*args, **kwargs)
    except RuntimeError:
        try:
            return shape(*args, **kwargs)
        except NotImplementedError:
            pass
        raise
