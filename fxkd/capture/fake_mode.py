"""Tensors without values where what is called most is shaped at once: torch takes far longer, anew for every size."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

Norm = tuple[Tensor, Tensor, Tensor]  # the value, and what the backward keeps: the mean, and one over the deviation
KINDS = {(torch.float32, "cpu"), (torch.float64, "cpu")}


class Mode(FakeTensorMode):
    """A mode for tensors without values.

    What is shaped here is of one type, in which it is computed, and on a CPU; all else, and what does not fit, is
    left to torch.

    >>> with Mode():
    ...     torch.nn.BatchNorm1d(3)(torch.ones(2, 3, 5)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        shaped = SHAPED[func](*args) if func in SHAPED and not kwargs and self._knows(args) else None
        return super().__torch_dispatch__(func, types, args, kwargs) if shaped is None else shaped

    def _knows(self, args: Sequence[Any]) -> bool:
        """Tell whether the tensors among some arguments are its own, of one type, on a CPU, and not known to it."""
        given: list[Any] = [arg for arg in args if isinstance(arg, Tensor)]
        is_own = all(type(one) is FakeTensor and one.fake_mode is self and one.constant is None for one in given)
        kinds = {(one.dtype, one.fake_device.type) for one in given} if is_own else set()
        return len(kinds) == 1 and kinds <= KINDS


def _like(x: FakeTensor, shape: Sequence[int], memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Make a tensor of the same type in the same place."""
    with in_kernel_invocation_manager(x.fake_mode):
        meta = torch.empty(tuple(shape), dtype=x.dtype, device="meta", memory_format=memory_format)
    return FakeTensor(x.fake_mode, meta, x.fake_device)


def _batch_norm(
    x: FakeTensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Norm | None:
    if x.dim() < 2:
        return None
    held = [tensor for tensor in (weight, bias, mean, var) if tensor is not None]
    is_complete = x.numel() > x.shape[1] if training else mean is not None and var is not None
    if not is_complete or any(tensor.shape != x.shape[1:2] for tensor in held):
        return None
    kept = [x.shape[1] if training else 0]
    return _like(x, x.shape, suggest_memory_format(x)), _like(x, kept), _like(x, kept)


def _layer_norm(x: FakeTensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Norm | None:
    held, normed = [tensor for tensor in (weight, bias) if tensor is not None], x.shape[-len(shape) :]
    if any(sizes != normed for sizes in (tuple(shape), *(tensor.shape for tensor in held))):
        return None
    kept = [*x.shape[: -len(shape)], *(1 for _ in shape)]
    return _like(x, x.shape), _like(x, kept), _like(x, kept)


def _addmm(bias: FakeTensor, x: FakeTensor, weight: FakeTensor) -> Tensor | None:
    is_fitting = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[0] and bias.shape == weight.shape[1:]
    return _like(x, (x.shape[0], weight.shape[1])) if is_fitting else None


def _mm(x: FakeTensor, other: FakeTensor) -> Tensor | None:
    is_fitting = x.dim() == other.dim() == 2 and x.shape[1] == other.shape[0]
    return _like(x, (x.shape[0], other.shape[1])) if is_fitting else None


def _bmm(x: FakeTensor, other: FakeTensor) -> Tensor | None:
    is_fitting = x.dim() == other.dim() == 3 and (x.shape[0], x.shape[2]) == other.shape[:2]
    return _like(x, (*x.shape[:2], other.shape[2])) if is_fitting else None


def _alike(x: FakeTensor, *others: Any) -> Tensor | None:
    """Shape what is computed element by element."""
    given = [x, *(one for one in others if not isinstance(one, (int, float)))]
    is_fitting = all(isinstance(one, FakeTensor) and one.shape == x.shape and one.is_contiguous() for one in given)
    return _like(x, x.shape) if is_fitting else None


aten = torch.ops.aten
SHAPED: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.bmm.default: _bmm,
    **dict.fromkeys((aten.relu.default, aten.gelu.default, aten.silu.default, aten.tanh.default), _alike),
    **dict.fromkeys((aten.sigmoid.default, aten.add.Tensor, aten.mul.Tensor), _alike),
}
