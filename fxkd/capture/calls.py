"""Modules and named functions while a model is recorded: which are one node, which are opened, which are points."""

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from fxkd.capture.captured import PointCall, PointName, call_inputs
from fxkd.capture.discover import Outcome
from fxkd.capture.generators import Generators
from fxkd.capture.held import Parts
from fxkd.capture.lines import current_line, name_in_use
from fxkd.capture.preserve import Contents, drawn_state, set_drawn_state
from fxkd.capture.recording import quiet
from fxkd.capture.structure import storages, tensors, versions, written
from fxkd.capture.tape import CONSTANTS, Tape, guard
from fxkd.errors import CaptureError
from fxkd.patcher import patched
from fxkd.points import Place
from fxkd.records import bound_arguments, function_inputs, module_inputs


@dataclass(frozen=True, slots=True)
class Named:
    """A function or method that is a point.

    Args:
        place: Where it is looked up.
        function: The callable behind it, called as a wrapper there is.
        points: The points named on it (its inputs, its outputs).
        outcomes: What the discovery run saw it give, call by call; None if it is opened because it holds points.
    """

    place: Place
    function: Callable[..., Any]
    points: tuple[PointName, ...]
    outcomes: list[Outcome] | None


class Calls:
    """Write the calls of modules and named functions to ``tape``.

    Args:
        tape: The recording.
        paths: Where each module hangs, by identity.
        opened: The modules whose forward is recorded; every other one is a leaf, one node.
        points: The points named on modules, by the module's identity.
        parts: What the modules held when the recording began.
        generators: Random generators of the model's own.
    """

    def __init__(
        self,
        tape: Tape,
        paths: dict[int, str],
        opened: set[int],
        points: dict[int, tuple[PointName, ...]],
        parts: Parts,
        generators: Generators,
    ) -> None:
        self.tape, self.paths, self.opened, self.points = tape, paths, opened, points
        self.parts, self.generators = parts, generators
        self.must_open: set[int] = set()
        self.ran_whole: set[int] = set()
        self._inside: list[nn.Module] = []
        self._function: str | None = None
        self._counts: Counter[PointName] = Counter()

    # Modules

    def wrap_module_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for ``nn.Module.__call__``."""

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not self.tape.listening:
                return self._call_unheard(original, module, args, kwargs)
            points = self.points.get(id(module), ())
            if id(module) in self.paths and id(module) not in self.opened:
                return self._call_leaf(original, module, args, kwargs, points)
            self._mark_inputs(points, module_inputs, (args, kwargs))
            with self._inside_of(module):
                value = original(module, *args, **kwargs)
            return self._mark_outputs(points, value)

        return call

    @contextmanager
    def _inside_of(self, module: nn.Module) -> Iterator[None]:
        """Let nodes know the opened module in whose forward they are made."""
        graph = self.tape.graph
        before, graph.inside = graph.inside, self.paths.get(id(module), graph.inside)
        try:
            yield
        finally:
            graph.inside = before

    def _call_unheard(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run what a leaf runs; a point found there opens the leaf and all between."""
        if id(module) in self.points:
            self._refuse_inside_function(self.paths[id(module)])
            self.must_open.update(map(id, self._inside))
        self._inside.append(module)
        try:
            return original(module, *args, **kwargs)
        finally:
            self._inside.pop()

    def _call_leaf(
        self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any, points: tuple[PointName, ...]
    ) -> Any:
        tape, path = self.tape, self.paths[id(module)]
        taken = self._mark_inputs(points, module_inputs, (args, kwargs))
        tape.taker = path
        arguments = tape.argument(args), tape.argument(kwargs)
        tape.taker = None
        with quiet(tape):
            own = [*module.parameters(), *module.buffers()]
            if self.parts.changed(module):
                self.must_open.add(id(module))
            before, contents = versions((args, kwargs, own)), Contents(module)
            drawn, own_drawn = drawn_state(), self.generators.states()
            self._inside.append(module)
            try:
                with _Observer(tape, path):
                    value = original(module, *args, **kwargs)
            finally:
                self._inside.pop()
            tape.left()
            set_drawn_state(drawn)
            self.generators.put_back(own_drawn)
            self.parts.note(module)
            self.ran_whole.update(map(id, module.modules()))
            node = tape.graph.create_node("call_module", f"{tape.name}.{path}", *arguments)
            node.meta.update(mutates=written(before), reads=storages(own), stateful=_has_state(module))
            node.meta["effect"] = contents.changed() or not tensors(value)
            node.meta["takes"] = taken
        return self._bind_call(value, node, points)

    # Named functions

    def wrap_function(self, named: Named) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make what stands for a named function or method."""
        given, own = function_inputs(named.place), bound_arguments(named.place)

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if not self.tape.listening:
                    self._refuse_unheard(named)
                    return original(*args, **kwargs)
                taken = self._mark_inputs(named.points, call_inputs, (given(args, kwargs), args[own:], kwargs))
                if named.outcomes is None:
                    return self._mark_outputs(named.points, original(*args, **kwargs))
                return self._call_whole(args, kwargs, named, {"takes": taken, "own": own})

            return call

        return wrap

    def _refuse_inside_function(self, what: str) -> None:
        if self._function is not None:
            is_checkpoint = self._function == CheckpointFunction.__name__
            remedy = "checkpoint without it (use_reentrant=False)" if is_checkpoint else "use backend='eager'"
            raise CaptureError(
                f"{what!r} is called inside {self._function}, which is one node with a backward of its own: name "
                f"another point, or {remedy}"
            )

    def _refuse_unheard(self, named: Named) -> None:
        self._refuse_inside_function(named.place.path)
        if not self._inside:
            own = name_in_use(named.function)
            what = f"is called there as {own!r}: name that" if own else "is one node: name the torch function itself"
            raise CaptureError(
                f"{named.place.path!r} is called inside a torch function at {current_line()}, which {what}, or use "
                "backend='eager'"
            )
        self.must_open.update(map(id, self._inside))

    def _call_whole(self, args: Any, kwargs: Any, named: Named, notes: dict[str, Any]) -> Any:
        """Keep the function as one node: its body runs at every step, never while it is recorded."""
        outcomes = named.outcomes or []
        calls = sum(1 for node in self.tape.graph.nodes if node.meta.get("function") == named.place.path)
        if calls >= len(outcomes):
            raise CaptureError(f"{named.place.path!r} was called {len(outcomes)} times in one run and more in another")
        outcome, given = outcomes[calls], tensors((args, kwargs))
        node = self.tape.emit(_callable_in_code(named.function), args, kwargs)
        shared = storages([given[index] for index in outcome.viewed])
        with quiet(self.tape):
            value = outcome.replay(given, self.tape.mode)
        node.meta.update(
            function=named.place.path,
            mutates=storages([given[index] for index in outcome.changed]),
            storages=storages(value) | shared,
            stateful=True,
            **notes,
        )
        return self._bind_call(value, node, named.points)

    def wrap_apply(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for ``torch.autograd.Function.apply``: one node, so that its own backward is kept."""

        def call(function: type, *args: Any) -> Any:
            if not self.tape.listening:
                return original(function, *args)
            arguments, before = self.tape.argument(args), versions(args)
            self._function = function.__name__
            with quiet(self.tape):
                value = original(function, *args)
            self._function = None
            node = self.tape.graph.call_function(_custom_function(function), arguments)
            node.meta["mutates"] = written(before)
            return self._bind_call(value, node, ())

        return call

    # Points

    def _bind_call(self, value: Any, node: fx.Node, points: tuple[PointName, ...]) -> Any:
        for point in points:
            if point.kind.endswith("Outputs"):
                node.meta["calls"] = (*node.meta.get("calls", ()), self._next(point))
        self.tape.bind(value, node)
        return self._seen(value, node)

    def _seen(self, value: Any, node: fx.Node) -> Any:
        """Give what the program sees of a call's result: its numbers carry nodes, its truths are guarded."""
        graph = self.tape.graph
        if isinstance(value, Tensor) or value is None:
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.tape.number(value, lambda: node)
        if isinstance(value, (bool, str)):
            graph.call_function(guard, (node, "==", value, current_line()))
            return value
        if type(value) is list:
            length = graph.call_function(len, (node,))
            graph.call_function(guard, (length, "==", len(value), current_line()))
        if type(value) in (tuple, list):
            return type(value)(self._seen_part(item, node, index) for index, item in enumerate(value))
        if type(value) is dict:
            return {key: self._seen_part(item, node, key) for key, item in value.items()}
        if not isinstance(value, CONSTANTS):
            self.tape.remember(value, node)
        return value

    def _seen_part(self, value: Any, node: fx.Node, key: Any) -> Any:
        if isinstance(value, Tensor) or value is None:
            return value
        return self._seen(value, self.tape.graph.call_function(operator.getitem, (node, key)))

    def _mark_inputs(
        self, points: tuple[PointName, ...], gather: Callable[..., Any], given: tuple[Any, ...]
    ) -> tuple[PointCall, ...]:
        """Let a node ``gather(*given)`` hold what a call was given; say which calls of points these are."""
        calls = tuple(self._next(point) for point in points if point.kind.endswith("Inputs"))
        for call in calls:
            node = self.tape.emit(gather, given)
            node.meta.update(val=gather(*given), storages=storages(given), calls=(call,))
        return calls

    def _mark_outputs(self, points: tuple[PointName, ...], value: Any) -> Any:
        for point in points:
            if point.kind.endswith("Outputs"):
                self.tape.mark(value, self._next(point))
        return value

    def _next(self, point: PointName) -> PointCall:
        self._counts[point] += 1
        return PointCall(point, self._counts[point] - 1)


@cache
def _custom_function(cls: Any) -> Callable[..., Any]:
    """Name a custom autograd function so that a graph can call it."""

    def apply(*args: Any) -> Any:
        return cls.apply(*args)

    apply.__name__ = apply.__qualname__ = f"apply_{cls.__name__}"
    return apply


@cache
def _callable_in_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give what the code of a graph can name: it writes a method of torch's as if it were a function of the module."""
    name, module = getattr(function, "__qualname__", ""), str(getattr(function, "__module__", ""))
    if "." not in name or module.partition(".")[0] != "torch":
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name.replace(".", "_")
    return call


class _Observer(TorchFunctionMode):
    """Note the tensors that a leaf makes, in case one gets out by a side way."""

    def __init__(self, tape: Tape, leaf: str) -> None:
        super().__init__()
        self.tape, self.leaf = tape, leaf

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        for tensor in tensors(value):
            self.tape.made_in_leaf.setdefault(id(tensor), (tensor, self.leaf))
        return value


@contextmanager
def recorded_calls(calls: Calls, functions: list[Named]) -> Iterator[None]:
    """Let ``calls`` stand for module calls, custom autograd functions and the named functions."""
    with ExitStack() as stack:
        stack.enter_context(patched(nn.Module, "__call__", calls.wrap_module_call))
        stack.enter_context(patched(torch.autograd.Function, "apply", calls.wrap_apply))
        for named in functions:
            stack.enter_context(patched(named.place.owner, named.place.name, calls.wrap_function(named)))
        yield


def _has_state(module: nn.Module) -> bool:
    """Tell whether a call of ``module`` may do more than give a value: move statistics, run somebody's hooks."""
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return hooked or any(True for _ in module.buffers())
