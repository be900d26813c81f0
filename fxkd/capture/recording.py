"""Record torch functions while a model runs: each becomes a node, nothing of the program sees a proxy."""

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode, is_tensor_method_or_property

from fxkd.capture import finite
from fxkd.capture.kernels import without_values
from fxkd.capture.operations import Operations
from fxkd.capture.structure import storages, tensors, versions, written
from fxkd.capture.tape import Tape

REFLECTED = re.compile(r"__r(add|sub|mul|truediv|floordiv|mod|pow|matmul|lshift|rshift|and|or|xor)__")
SPLITTERS = {"unbind", "split", "split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit"}
HOOKS = {"register_hook", "retain_grad"}  # they give nothing, and gradients depend on them
FLAGS = {"requires_grad", "is_leaf"}  # a program may go one way or another by them
GRAD_MODE = torch._C._set_grad_enabled


class Recording(TorchFunctionMode):
    """Write what torch functions do to ``tape`` while ``tape.listening``; those that are points are marked."""

    def __init__(self, tape: Tape, operations: Operations) -> None:
        super().__init__()
        self.tape, self.operations = tape, operations

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not self.tape.listening or func is GRAD_MODE:
            return func(*args, **kwargs)
        if name == "__get__":
            return self._property(func, args)
        if name == "__set__":
            return self._set_property(func, args)
        if name in HOOKS:
            self.tape.graph.call_method(name, self.tape.argument(args)).meta["effect"] = True
            with quiet(self.tape):
                return func(*args, **kwargs)
        if name in SIZES:
            return SIZES[name](self.tape, *args, **kwargs)
        return self._call(func, name, args, kwargs)

    def _property(self, func: Any, args: tuple[Any, ...]) -> Any:
        attribute = func.__self__.__name__
        if attribute == "shape":
            return _size(self.tape, args[0])
        value = func(*args)
        if attribute in FLAGS and self.tape.knows(args[0]):
            self.tape.decide_that(self.tape.emit(getattr, (args[0], attribute)), value)
        if isinstance(value, Tensor) and self.tape.node_of(value) is None:
            self.tape.bind(value, self.tape.emit(getattr, (args[0], attribute)))
        return value

    def _set_property(self, func: Any, args: tuple[Any, ...]) -> None:
        tensor, value = args
        node = self.tape.emit(setattr, (tensor, func.__self__.__name__, value))
        node.meta["mutates"] = storages(tensor)
        with quiet(self.tape):
            func(tensor, value)

    def _call(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tape = self.tape
        arguments = tape.argument(args), tape.argument(kwargs)
        before = versions((args, kwargs))
        is_asked = finite.truth(func, args) is not None
        with quiet(tape):
            is_open = is_asked and finite.is_of_input(tape, args[0])
            value = func(*args, **kwargs) if is_open else without_values(func, args, kwargs)
        changed = written(before) | _moved_statistics(func, args, kwargs)
        if name == "is_contiguous":
            tape.decide_that(_node(tape.graph, func, name, *arguments), value)
        if is_asked:
            finite.check(tape, args[0], value)
        if not changed and not tensors(value):
            return value
        node = _node(tape.graph, func, name, *arguments)
        node.meta["mutates"] = changed
        tape.bind(value, node)
        self.operations.done(func, value)
        if name in SPLITTERS:
            tape.decide(tape.number(len(value), lambda: _length(tape, node)), "==", len(value))
        return value


class quiet:
    """Do not listen for a while."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __enter__(self) -> None:
        self.previous, self.tape.listening = self.tape.listening, False

    def __exit__(self, *raised: object) -> None:
        self.tape.listening = self.previous


def _moved_statistics(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> frozenset[int]:
    """Give the memory of running statistics that a norm moves: torch does not count these writes."""
    if func not in (functional.batch_norm, functional.instance_norm, torch.batch_norm, torch.instance_norm):
        return frozenset()
    return storages([args[1:3], kwargs.get("running_mean"), kwargs.get("running_var")])


def _node(graph: fx.Graph, func: Any, name: str, args: Any, kwargs: Any) -> fx.Node:
    """Add the call of a torch function in the form that reads best: an operator, a method, a function."""
    plain = name.strip("_")
    if REFLECTED.fullmatch(name):
        return graph.call_function(getattr(operator, f"__{plain[1:]}__"), args[::-1])
    if name.startswith("__") and hasattr(operator, name) and not kwargs:
        return graph.call_function(getattr(operator, name), args)
    if not isinstance(func, type) and is_tensor_method_or_property(func):
        return graph.call_method(name, args, kwargs)
    return graph.call_function(func, args, kwargs)


def _length(tape: Tape, node: fx.Node) -> fx.Node:
    return tape.graph.call_function(len, (node,))


# Sizes stay free: each is a number with a node.


def _size(tape: Tape, tensor: Tensor, dim: int | None = None) -> Any:
    node = tape.argument(tensor)
    with quiet(tape):
        shape = tensor.shape

    def one(index: int) -> Any:
        return tape.number(shape[index], lambda: _method(tape, "size", node, index))

    if dim is not None:
        return one(int(dim))
    return torch.Size([one(index) for index in range(len(shape))])


def _stride(tape: Tape, tensor: Tensor, dim: int | None = None) -> Any:
    node = tape.argument(tensor)
    with quiet(tape):
        strides = tensor.stride()

    def one(index: int) -> Any:
        return tape.number(strides[index], lambda: _method(tape, "stride", node, index))

    return one(int(dim)) if dim is not None else tuple(one(index) for index in range(len(strides)))


def _numel(tape: Tape, tensor: Tensor) -> Any:
    node = tape.argument(tensor)
    with quiet(tape):
        count = tensor.numel()
    return tape.number(count, lambda: _method(tape, "numel", node))


def _len(tape: Tape, tensor: Tensor) -> int:
    length: int = _size(tape, tensor, 0).pin()
    return length


def _method(tape: Tape, name: str, *args: Any) -> fx.Node:
    return tape.graph.call_method(name, args)


SIZES: dict[str, Callable[..., Any]] = {
    "size": _size,
    "stride": _stride,
    "numel": _numel,
    "nelement": _numel,
    "__len__": _len,
}
