"""Run connectors and losses on tensors without values: what shapes they give, and whether they run at all."""

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fxkd.capture.preserve import preserved
from fxkd.capture.structure import tensors
from fxkd.capture.tracked import plain
from fxkd.errors import SpecError

NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    NotImplementedError,
)
WRONG_ARGUMENT = ("invalid combination of arguments", "must be Tensor", "unsupported operand")
WORDS_OF_FAKES = ("faketensor", "fake tensor", "fake mode", "tensor subclass", "data pointer", "meta tensor", "storage")


PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}
PRODUCTS |= {torch.ops.aten.convolution, torch.ops.aten.linear, torch.ops.aten.binary_cross_entropy}
BY_CLASS = {torch.ops.aten.nll_loss_forward, torch.ops.aten.nll_loss2d_forward}


class SameTypes(TorchDispatchMode):
    """Refuse what kernels refuse and tensors without values take: products of different types, classes as int32."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kinds = {str(tensor.dtype) for tensor in tensors(args)} if func.overloadpacket in PRODUCTS else set()
        if len(kinds) > 1:
            raise RuntimeError(f"{func.overloadpacket} needs tensors of the same dtype, not {', '.join(sorted(kinds))}")
        if func.overloadpacket in BY_CLASS and args[1].dtype not in (torch.int64, torch.uint8):
            raise RuntimeError(f"classes are given as {args[1].dtype}; give torch.int64")
        return func(*args, **(kwargs or {}))


def _same_types() -> SameTypes:
    return SameTypes()  # type: ignore[no-untyped-call]


class Unseen(Exception):
    """Something cannot be told from tensors without values."""


class Mistake(Exception):
    """A module does not run on what it is given; holds what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        name = "" if isinstance(self.error, SpecError) else f"{type(self.error).__name__}: "
        return name + (str(self.error) or "no message").strip()


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """Where connectors and losses run without values: one mode for all, the grad mode that is in force.

    Args:
        mode: The mode of every tensor.

    >>> stage = Stage()
    >>> stage.call(nn.Linear(4, 2), stage.fresh(torch.zeros(3, 4))).shape
    torch.Size([3, 2])
    """

    mode: FakeTensorMode = dataclasses.field(default_factory=lambda: FakeTensorMode(allow_non_fake_inputs=True))

    def fresh(self, value: Any, device: torch.device | None = None, *, grad: bool | None = None) -> Any:
        """Give ``value`` with new tensors of the same form.

        Args:
            value: A tensor or what holds tensors, with values or without, of whatever mode.
            device: Where they shall be; by default where they are.
            grad: Whether they require gradients; by default if they do.

        Raises:
            Unseen: There is a tensor inside that has no such twin.
        """
        new = self._fresh(value, device, grad)
        if any(getattr(tensor, "fake_mode", None) is not self.mode for tensor in tensors(new)):
            raise Unseen
        return new

    def _fresh(self, value: Any, device: torch.device | None, grad: bool | None) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping)):
            new = copy.copy(value)
            for field in dataclasses.fields(value):
                object.__setattr__(new, field.name, self._fresh(getattr(value, field.name), device, grad))
            return new
        made = pytree.tree_map_only(Tensor, lambda tensor: self._twin(tensor, device, grad), value)
        return pytree.tree_map(plain, made)

    def _twin(self, tensor: Tensor, device: torch.device | None, grad: bool | None) -> Tensor:
        if tensor.layout is not torch.strided or is_lazy(tensor):
            raise Unseen
        shape, strides, device = tensor.shape, tensor.stride(), device or tensor.device
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        with self.mode, torch.enable_grad():
            memory = torch.empty(reach + 1 if tensor.numel() else 0, dtype=tensor.dtype, device=device)
            differs = tensor.is_floating_point() or tensor.is_complex()
            if tensor.requires_grad if grad is None else grad and differs:
                memory = memory.requires_grad_().clone()  # no leaf: a module may write to what it is given
            return memory.as_strided(shape, strides)

    def call(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call ``module``, which is left as it was, with twins of its own tensors on the arguments' device.

        Raises:
            Unseen: It looks at values, or cannot run without them.
            Mistake: It raised something else.
        """
        return self._call(module, args, kwargs, nullcontext())

    def flops(self, module: nn.Module, *args: Any, **kwargs: Any) -> int:
        """Count the floating-point operations of such a call; a multiplication and an addition are two."""
        counter = FlopCounterMode(display=False)
        self._call(module, args, kwargs, counter)
        return counter.get_total_flops()

    def _call(self, module: nn.Module, args: Any, kwargs: Any, inside: AbstractContextManager[Any]) -> Any:
        if isinstance(module, torch.jit.ScriptModule):
            raise Unseen
        given = tensors((args, kwargs))
        device = given[0].device if given else None
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        twins = {name: self.fresh(tensor, device) for name, tensor in held.items()}
        with preserved(module), self._quiet(), self.mode, _same_types(), inside:
            try:
                return torch.func.functional_call(module, twins, args, kwargs)
            except Exception as error:
                if needs_values(error):
                    raise Unseen from error
                raise Mistake(error) from error

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
            warnings.simplefilter("ignore")
            yield


def needs_values(error: Exception) -> bool:
    """Tell whether something failed for want of values, so that it may be right."""
    if isinstance(error, TypeError) and any(words in str(error) for words in WRONG_ARGUMENT):
        return False  # such messages name the type of every argument
    return isinstance(error, NEEDS_VALUES) or any(word in str(error).lower() for word in WORDS_OF_FAKES)
