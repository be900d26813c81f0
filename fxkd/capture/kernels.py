"""Operations whose kernel for tensors without values takes less than the one that computes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fxkd.capture import finite


def _grouped_mm(rows: Tensor, weights: Tensor, *_: Any, **__: Any) -> Tensor | None:
    """Multiply by one weight: on a CPU torch takes any type of number, without values bfloat16 alone."""
    return rows @ weights[0] if rows.dim() == 2 and weights.dim() == 3 else None


SHAPES = {torch._grouped_mm: _grouped_mm} if hasattr(torch, "_grouped_mm") else {}


def without_values(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function of torch on tensors without values; what it does not take is shaped by a stand-in, if any is."""
    known = finite.truth(function, args)
    if known is not None:
        return known
    try:
        value = function(*args, **kwargs)
    except RuntimeError:
        value = SHAPES[function](*args, **kwargs) if function in SHAPES else None
        if value is None:
            raise
    finite.note(function, args, kwargs, value)
    return value
