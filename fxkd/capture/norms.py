"""Tensors without values where norms are shaped at once: torch takes them apart, anew for every size."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

Norm = tuple[Tensor, Tensor, Tensor]  # the value, and what the backward keeps: the mean, and one over the deviation
TYPES = (torch.float32, torch.float64)


class Mode(FakeTensorMode):
    """A mode for tensors without values.

    >>> with Mode():
    ...     torch.nn.BatchNorm1d(3)(torch.ones(2, 3, 5)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        shaped = NORMS[func](*args) if func in NORMS and not kwargs else None
        return super().__torch_dispatch__(func, types, args, kwargs) if shaped is None else shaped


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Norm | None:
    held = [tensor for tensor in (weight, bias, mean, var) if tensor is not None]
    is_complete = x.numel() > x.shape[1] if training else mean is not None and var is not None
    if not is_complete or not _is_plain(x, held) or any(tensor.shape != x.shape[1:2] for tensor in held):
        return None
    kept = x.shape[1] if training else 0
    value = torch.empty_like(x, memory_format=suggest_memory_format(x))
    return value, x.new_empty(kept), x.new_empty(kept)


def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Norm | None:
    held, normed = [tensor for tensor in (weight, bias) if tensor is not None], x.shape[-len(shape) :]
    is_fitting = tuple(shape) == normed and all(tensor.shape == normed for tensor in held)
    if not is_fitting or not x.is_contiguous() or not _is_plain(x, held):
        return None
    kept = [*x.shape[: -len(shape)], *(1 for _ in shape)]
    return torch.empty_like(x), x.new_empty(kept), x.new_empty(kept)


def _is_plain(x: Tensor, held: list[Tensor]) -> bool:
    """Tell whether all are tensors without values, of one type in which a norm computes, on a CPU."""
    is_one_kind = all((type(t), t.dtype, t.device) == (FakeTensor, x.dtype, x.device) for t in (x, *held))
    return is_one_kind and x.dtype in TYPES and x.device.type == "cpu"


NORMS: dict[Any, Callable[..., Norm | None]] = {
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.native_layer_norm.default: _layer_norm,
}
