"""Why a point that exists is never called, found by running the model once more, and what to name instead."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from fxkd import patcher
from fxkd.capture import Inputs, PointName
from fxkd.errors import FxkdError, did_you_mean
from fxkd.lookups import lookups
from fxkd.nearest import as_ranges
from fxkd.operations import operations_seen, split_operation
from fxkd.patcher import patched
from fxkd.points import Place, find_function, find_method, find_module, original
from fxkd.watch import run_once

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
ONE_PIECE = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def why_unreached(model: nn.Module, side: str, point: PointName, inputs: Inputs) -> str:
    """Say that a point exists and is not called, and why.

    >>> model = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    >>> model.forward = lambda x: x
    >>> why_unreached(model, "student", PointName("ModuleOutputs", "fc"), Inputs((torch.ones(1, 2),)))
    "'fc' exists, but the student does not call it in its forward, neither in train nor in eval mode, with these inputs"
    """
    if point.kind == "Operation":
        return _why_operation(model, side, point, inputs)
    what = f"{point.path!r} exists, but the {side} does not call it in its forward"
    if point.kind.startswith("Module"):
        return what + _why_module(model, point, inputs)
    return what + _why_place(model, point, inputs)


@dataclass
class Ran:
    """What one run called: modules, modules whose ``forward`` was called past them, places of the program."""

    modules: set[int] = field(default_factory=set)
    forwards: set[int] = field(default_factory=set)
    places: set[str] = field(default_factory=set)


def _why_operation(model: nn.Module, side: str, point: PointName, inputs: Inputs) -> str:
    path, name = split_operation(point.path)
    module, done = find_module(model, path), _operations(model, inputs)
    if id(module) not in done:
        return why_unreached(model, side, PointName("ModuleOutputs", path), inputs)
    where = f"the forward of {path!r} ({type(module).__name__})"
    if name in done[id(module)]:
        return f"{where} does {name!r} only inside a function that is one node here; name that function"
    other = _in_other_mode(model, lambda: _operations(model, inputs))
    if name in other.get(id(module), ()):
        return f"{where} does no {name!r}" + _only_in_other(model)
    has = ", ".join(map(repr, done[id(module)])) or "none of its own"
    return f"{where} does no {name!r}; its operations are {has}." + did_you_mean(name, done[id(module)])


def _operations(model: nn.Module, inputs: Inputs) -> dict[int, dict[str, None]]:
    """List the operations of each module that ran, by its identity; nothing if the model does not run."""
    ran = _ran(model, inputs)
    done: dict[int, dict[str, None]] = {key: {} for key in (ran.modules if ran else ())}
    with operations_seen(model, lambda module, name, value: done[id(module)].setdefault(name)), suppress(FxkdError):
        run_once(model, inputs)
    return done


def _why_module(model: nn.Module, point: PointName, inputs: Inputs) -> str:
    module = find_module(model, point.path)
    if isinstance(module, CONTAINERS):
        return f": a {type(module).__name__} only holds others; name one of them: it has {_children(module)}"
    for path, holder in _holders(model, point.path):
        if isinstance(holder, ONE_PIECE):
            return (
                f": it is a part of {path!r}, a {type(holder).__name__}, which runs as one piece; name {path!r} instead"
            )
    ran = _ran(model, inputs, module=module)
    if ran is None:
        return _here(model)
    if id(module) in ran.forwards:
        return (
            f": it calls the 'forward' of it directly, which no hook sees; call the module itself, or name the method "
            f"'{type(module).__module__}.{type(module).__qualname__}.forward' with type 'MethodOutputs'"
        )
    other = _in_other_mode(model, lambda: _ran(model, inputs))
    if other is not None and id(module) in other.modules:
        return _only_in_other(model)
    path, holder = next(iter(_holders(model, point.path)))
    if path and id(holder) in ran.modules and list(module.parameters()) and not isinstance(holder, nn.Sequential):
        return (
            f": {path!r} ({type(holder).__name__}) is called and does not call it, although it may use its parameters; "
            f"name {path!r}, or record a parameter with type 'Parameter'"
        )
    return _nowhere(model, other)


def _why_place(model: nn.Module, point: PointName, inputs: Inputs) -> str:
    place = (find_function if point.kind.startswith("Function") else find_method)(point.path)
    same = _other_names(model, inputs, place)
    ran = _ran(model, inputs, places=same)
    if ran is not None and ran.places:
        names = " and ".join(repr(path) for path in same if path in ran.places)
        return f" under this name: it calls it as {names}; name that"
    for path, name in _held(model, place):
        where = f"the module {path!r}" if path else "the model"
        return f": {where} holds it as {name!r}, so that no name is looked up when it is called; name a module instead"
    other = _in_other_mode(model, lambda: _ran(model, inputs, places={point.path: place}))
    if other is not None and point.path in other.places:
        return _only_in_other(model)
    names = _in_other_mode(model, lambda: _called_as(model, inputs, place))
    if names:
        return f"{_only_in_other(model)}, as {names}; name that"
    return _nowhere(model, other)


def _called_as(model: nn.Module, inputs: Inputs, place: Place) -> str:
    same = _other_names(model, inputs, place)
    ran = _ran(model, inputs, places=same)
    return " and ".join(repr(path) for path in same if ran is not None and path in ran.places)


def _here(model: nn.Module) -> str:
    return f" (in {_mode(model)} mode, with these inputs)"


def _nowhere(model: nn.Module, other: Ran | None) -> str:
    if other is None:
        return _here(model)
    return ", neither in train nor in eval mode, with these inputs"


def _only_in_other(model: nn.Module) -> str:
    here, there = ("train", "eval") if model.training else ("eval", "train")
    return f" in {here} mode; it does in {there} mode"


def _mode(model: nn.Module) -> str:
    return "train" if model.training else "eval"


def _children(module: nn.Module) -> str:
    return ", ".join(as_ranges([name for name, child in module._modules.items() if child is not None])) or "nothing"


def _holders(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules around the one at ``path``, the innermost first."""
    while path:
        path = path.rpartition(".")[0]
        yield path, find_module(model, path)


def _held(model: nn.Module, place: Place) -> Iterator[tuple[str, str]]:
    """Yield each module that holds the function itself as an attribute, and the name of that."""
    function = original(place)
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if value is function or (isinstance(value, partial) and value.func is function):
                yield path, name


def _other_names(model: nn.Module, inputs: Inputs, place: Place) -> dict[str, Place]:
    """Give the places by which the code that runs may look up the same function, or the method of a related class."""
    try:
        found = list(lookups(lambda: run_once(model, inputs)))
    except FxkdError:
        return {}
    return {name.path: other for name, other in found if _is_same(other, place)}


def _is_same(one: Place, other: Place) -> bool:
    if one.owner is other.owner and one.name == other.name:
        return False
    if isinstance(one.owner, type) and isinstance(other.owner, type):
        related = issubclass(one.owner, other.owner) or issubclass(other.owner, one.owner)
        return related and one.name == other.name
    return original(one) is original(other)


def _ran(
    model: nn.Module, inputs: Inputs, module: nn.Module | None = None, places: dict[str, Place] | None = None
) -> Ran | None:
    """Run the model and see what is called; nothing if it does not run."""
    ran = Ran()
    with ExitStack() as stack:
        stack.enter_context(patcher.lock)
        stack.enter_context(patched(nn.Module, "__call__", _noting_module(ran.modules)))
        if module is not None:
            stack.enter_context(patched(module, "forward", _noting(ran.forwards, id(module))))
        for path, place in (places or {}).items():
            stack.enter_context(patched(place.owner, place.name, _noting(ran.places, path)))
        try:
            run_once(model, inputs)
        except FxkdError:
            return None
    return ran


def _noting(seen: set[Any], what: Any) -> Wrap:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.add(what)
            return function(*args, **kwargs)

        return call

    return wrap


def _noting_module(seen: set[int]) -> Wrap:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            seen.add(id(module))
            return function(module, *args, **kwargs)

        return call

    return wrap


def _in_other_mode(model: nn.Module, run: Callable[[], Any]) -> Any:
    with _turned(model):
        return run()


@contextmanager
def _turned(model: nn.Module) -> Iterator[None]:
    """Put a model in the other mode for a while."""
    flags = [(module, module.training) for module in model.modules()]
    model.train(not model.training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
