"""What every module, function and method of a model gave in one run: shapes and types, no values."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from fxkd import patcher
from fxkd.capture import Inputs, PointName
from fxkd.capture.lines import raising_line
from fxkd.capture.preserve import preserved
from fxkd.capture.structure import parts, tensors
from fxkd.capture.twins import fake_of, fake_twins
from fxkd.errors import CaptureError
from fxkd.lookups import called_by_model, lookups
from fxkd.operations import MARK, operations_seen
from fxkd.patcher import patched


@dataclass(frozen=True, slots=True)
class Call:
    """What one call gave: its shape (nested as the value is) and the types of the tensors inside."""

    shape: Any
    dtypes: frozenset[torch.dtype]


_may_run_on_values = ContextVar("_may_run_on_values", default=True)
Calls = dict[int | PointName, list[Call]]  # of modules by identity, of functions and methods by name


def watch(model: nn.Module, inputs: Inputs, *, operations: bool = False) -> Calls:
    """Run ``model`` and see what is called; the model is left as it was.

    It runs once to see which functions and methods there are and once with a watch on each: on tensors without values,
    or, where that fails, on the inputs themselves. Functions and methods are listed if they gave a tensor and a line
    of the model's own code called them. ``operations`` too are listed on request, by name.

    Raises:
        CaptureError: The model does not run on the inputs; says where.

    >>> model = nn.ReLU()
    >>> watch(model, Inputs((torch.zeros(2, 3),)))[id(model)]
    [Call(shape=(2, 3), dtypes=frozenset({torch.float32}))]
    """
    with patcher.lock, torch.compiler.set_stance("force_eager"):
        try:
            return _watch(lambda: _run_without_values(model, inputs), model if operations else None)
        except Exception:  # noqa: BLE001 (whatever it is, the run on values tells whether it is the model's)
            return _watch(lambda: _run(model, inputs), model if operations else None)


def run_once(model: nn.Module, inputs: Inputs) -> None:
    """Run ``model`` on tensors without values, or, where that fails, on the inputs themselves; it is left as it was.

    Raises:
        CaptureError: The model does not run on the inputs; says where.

    >>> run_once(nn.ReLU(), Inputs((torch.zeros(2, 3),)))
    """
    with patcher.lock, torch.compiler.set_stance("force_eager"):
        try:
            _run_without_values(model, inputs)
        except Exception as error:
            if not _may_run_on_values.get():
                raise CaptureError("the model does not run on tensors without values") from error
            _run(model, inputs)


@contextmanager
def never_on_values() -> Iterator[None]:
    """Let ``run_once`` fail inside where a model does not run on tensors without values."""
    token = _may_run_on_values.set(False)
    try:
        yield
    finally:
        _may_run_on_values.reset(token)


def _watch(run: Callable[[], object], operating: nn.Module | None) -> Calls:
    named = list(lookups(run))
    calls: Calls = defaultdict(list)
    by_model: set[PointName] = set()
    with ExitStack() as stack:
        stack.enter_context(patched(nn.Module, "__call__", _module_watcher(calls)))
        for name, place in named:
            stack.enter_context(patched(place.owner, place.name, _watcher(name, calls, by_model)))
        if operating is not None:
            stack.enter_context(_operations_watched(operating, calls, by_model))
        run()
    useful = {name for name in by_model if any(call.dtypes for call in calls[name])}
    return {key: given for key, given in calls.items() if isinstance(key, int) or key in useful}


def _module_watcher(calls: Calls) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            value = original(module, *args, **kwargs)
            calls[id(module)].append(_seen(value))
            return value

        return call

    return wrap


def _operations_watched(model: nn.Module, calls: Calls, named: set[PointName]) -> AbstractContextManager[None]:
    paths = {id(module): path for path, module in model.named_modules()}

    def see(module: nn.Module, name: str, value: Any) -> None:
        point = PointName("Operation", f"{paths[id(module)]}{MARK}{name}")
        calls[point].append(_seen(value))
        named.add(point)

    return operations_seen(model, see)


def _watcher(
    name: PointName, calls: Calls, by_model: set[PointName]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            value, caller = original(*args, **kwargs), sys._getframe(1)
            if _is_step_of_torch(caller):
                return value
            calls[name].append(_seen(value))
            if called_by_model(caller):
                by_model.add(name)
            return value

        return call

    return wrap


def _is_step_of_torch(frame: FrameType | None) -> bool:
    """Tell whether a call is made to find the shape of a tensor without values: with values it would not happen."""
    while frame is not None and not called_by_model(frame):
        if frame.f_code.co_filename == fake_tensor.__file__:
            return True
        frame = frame.f_back
    return False


def _seen(value: Any) -> Call:
    return Call(_shape(value), frozenset(tensor.dtype for tensor in tensors(value)))


def _shape(value: Any) -> Any:
    """Give the shape of a tensor; of a container, those of its parts in its place."""
    if isinstance(value, Tensor):
        return tuple(map(int, value.shape))
    if isinstance(value, (tuple, list)):
        return tuple(map(_shape, value))
    return {key: _shape(part) for part, _, key in parts(value)} or None


def _run_without_values(model: nn.Module, inputs: Inputs) -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    args, kwargs = pytree.tree_map_only(Tensor, partial(fake_of, mode), (inputs.args, inputs.kwargs))
    with preserved(model, values=False), fake_twins(model, partial(fake_of, mode)), mode:
        model(*args, **kwargs)


def _run(model: nn.Module, inputs: Inputs) -> None:
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    try:
        with preserved(model, values=True):
            model(*args, **kwargs)
    except Exception as error:
        where = f"{type(error).__name__} at {raising_line(error)}"
        raise CaptureError(f"the model does not run on example_inputs: {where}: {error}") from error
