"""Modules and named functions while a model is recorded: which are one node, which are opened, which are points."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

from fxkd.capture.callables import Kind, callable_in_code, custom_function, runs_without_values
from fxkd.capture.captured import PointName, call_inputs
from fxkd.capture.discover import Outcome, observe
from fxkd.capture.held import Parts
from fxkd.capture.kernels import without_values
from fxkd.capture.lasting import Lasting
from fxkd.capture.lines import current_line, in_fake_kernel, may_give_nothing, name_in_use
from fxkd.capture.marks import Marks
from fxkd.capture.preserve import Contents, drawn_state, set_drawn_state
from fxkd.capture.recording import quiet
from fxkd.capture.structure import storages, tensors, versions, written
from fxkd.capture.tape import Tape
from fxkd.capture.whole import as_whole
from fxkd.capture.whole_calls import keep_objects
from fxkd.errors import CaptureError, FxkdError
from fxkd.patcher import patched
from fxkd.points import Place
from fxkd.records import bound_arguments, function_inputs, module_inputs


class InsideOneNode(CaptureError):
    """A point is called inside what is one node."""


@dataclass(frozen=True, slots=True)
class Named:
    """A function or method that is a point.

    Args:
        place: Where it is looked up.
        function: The callable behind it, called as a wrapper there is.
        points: The points named on it (its inputs, its outputs).
        outcomes: What the discovery run saw it give, call by call; None if it is opened because it holds points.
        is_tried: Whether it runs without values at each call instead, which tells the same on tensors of other sizes.
    """

    place: Place
    function: Callable[..., Any]
    points: tuple[PointName, ...]
    outcomes: list[Outcome] | None
    is_tried: bool = False


class Calls:
    """Write the calls of modules and named functions to ``tape``.

    Args:
        tape: The recording.
        paths: Where each module hangs, by identity.
        opened: The modules whose forward is recorded; every other one is a leaf, one node.
        points: The points named on modules, by the module's identity.
        parts: What the modules held when the recording began.
        contents: What the model holds, and random generators of its own.
        seen: What leaves that do not run on fake tensors gave on values, call by call, by the module's identity.
        kinds: What named functions do that fake tensors do not show, by path; filled as they are met.
        lasting: What outlasts the call, as it was when the recording began.
    """

    def __init__(
        self,
        tape: Tape,
        paths: dict[int, str],
        opened: set[int],
        points: dict[int, tuple[PointName, ...]],
        parts: Parts,
        contents: Contents,
        seen: dict[int, list[Outcome | None]],
        kinds: dict[str, Kind],
        lasting: Lasting,
    ) -> None:
        self.tape, self.paths, self.opened, self.points = tape, paths, opened, points
        self.parts, self.contents, self.generators = parts, contents, contents.generators
        self.seen, self.kinds, self.lasting = seen, kinds, lasting
        self.must_open: set[int] = set()
        self.must_see: set[int] = set()
        self.ran_whole: set[int] = set()
        self._inside: list[nn.Module] = []
        self._function: str | None = None
        self._is_trying = False
        self.marks = Marks(tape)
        self._leaf_counts: Counter[int] = Counter()

    # Modules

    def wrap_module_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for ``nn.Module.__call__``."""

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not self.tape.listening:
                return self._call_unheard(original, module, args, kwargs)
            points = self.points.get(id(module), ())
            if id(module) in self.paths and id(module) not in self.opened:
                return self._call_leaf(original, module, args, kwargs, points)
            self.marks.inputs(points, module_inputs, (args, kwargs))
            with self._inside_of(module):
                value = original(module, *args, **kwargs)
            return self.marks.outputs(points, value)

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
        taken = self.marks.inputs(points, module_inputs, (args, kwargs))
        tape.taker = path
        tape.refuse_changed()
        arguments = tape.argument(args), tape.argument(kwargs)
        tape.taker = None
        with quiet(tape):
            own = [*module.parameters(), *module.buffers()]
            if self.parts.changed(module) or self.lasting.set_in((args, kwargs)):
                self.must_open.add(id(module))
            before, contents = versions((args, kwargs, own)), self.contents.of(module)
            drawn, own_drawn = drawn_state(), self.generators.states()
            self._inside.append(module)
            try:
                with _Observer(tape, path):
                    value = self._run_leaf(original, module, args, kwargs)
            finally:
                self._inside.pop()
            tape.left()
            set_drawn_state(drawn)
            self.generators.put_back(own_drawn)
            is_changed = contents.changed()
            if is_changed:
                self.parts.note(module)
            self.lasting.note((args, kwargs))
            self.ran_whole.update(map(id, module.modules()))
            node = tape.graph.create_node("call_module", f"{tape.name}.{path}", *arguments)
            node.meta.update(mutates=written(before), reads=storages(own), stateful=_has_state(module))
            node.meta["effect"] = is_changed or not tensors(value)
            node.meta["takes"] = taken
        return self.marks.bind_call(value, node, points)

    def _run_leaf(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run a leaf on fake tensors; of one that does not run so, give what it gave on values."""
        if id(module) not in self.seen:
            try:
                return original(module, *args, **kwargs)
            except FxkdError:
                raise
            except Exception:
                self.must_see.add(id(module))
                raise
        outcomes, index = self.seen[id(module)], self._leaf_counts[id(module)]
        self._leaf_counts[id(module)] += 1
        if index >= len(outcomes):
            raise CaptureError(
                f"the module {self.paths[id(module)]!r} was called {len(outcomes)} times in one run and more in another"
            )
        outcome = outcomes[index]
        return outcome.replay(tensors((args, kwargs)), self.tape.mode) if outcome else original(module, *args, **kwargs)

    def wrap_conversion(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for ``nn.Module._apply``: what is of a type and in a place already needs no new tensors."""

        def convert(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
            with quiet(self.tape), torch.no_grad():
                held = [*module.parameters(recurse), *module.buffers(recurse)]
                is_done = all(function(tensor) is tensor for tensor in held)
            return module if is_done else original(module, function, recurse)

        return convert

    # Named functions

    def wrap_function(self, named: Named) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make what stands for a named function or method."""
        given, own = function_inputs(named.place), bound_arguments(named.place)

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)  # a program may ask for its signature
            def call(*args: Any, **kwargs: Any) -> Any:
                if not self.tape.listening:
                    is_own = self._is_trying or self._function == named.place.path
                    if not is_own and not in_fake_kernel():
                        self._refuse_unheard(named)
                    return original(*args, **kwargs)
                taken = self.marks.inputs(named.points, call_inputs, (given(args, kwargs), args[own:], kwargs))
                if named.outcomes is None:
                    return self.marks.outputs(named.points, original(*args, **kwargs))
                return self._call_whole(args, kwargs, named, {"takes": taken, "own": own})

            return call

        return wrap

    def _refuse_inside_function(self, what: str) -> None:
        if self._function is not None:
            is_checkpoint = self._function == CheckpointFunction.__name__
            remedy = "checkpoint without it (use_reentrant=False)" if is_checkpoint else "use backend='eager'"
            raise InsideOneNode(
                f"{what!r} is called inside {self._function}, which is one node with a backward of its own: name "
                f"another point, or {remedy}"
            )

    def _refuse_unheard(self, named: Named) -> None:
        self._refuse_inside_function(named.place.path)
        if not self._inside:
            own = name_in_use(named.function)
            what = f"is called there as {own!r}: name that" if own else "is one node: name the torch function itself"
            raise InsideOneNode(
                f"{named.place.path!r} is called inside a torch function at {current_line()}, which {what}, or use "
                "backend='eager'"
            )
        self.must_open.update(map(id, self._inside))

    def _call_whole(self, args: Any, kwargs: Any, named: Named, notes: dict[str, Any]) -> Any:
        """Keep the function as one node: its body runs at every step, never while it is recorded."""
        path, function = named.place.path, named.function
        kind = self._kind(named, args, kwargs)
        self._refuse_set(path, kind, (args, kwargs))
        outcome, given = self._outcome(args, kwargs, named), tensors((args, kwargs))
        notes["by_values"] = kind.needs_values
        keep_objects((args, kwargs))
        node = self.tape.emit(callable_in_code(function) if kind.is_plain else as_whole(function, path), args, kwargs)
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
        if kind.needs_values or isinstance(value, (tuple, list, Mapping)):
            self.marks.guard_form(value, node)
            return self.marks.bind_call(value, node, named.points)
        seen = self.marks.bind_call(value, node, named.points)
        self.marks.guard_nothing(value, node, may_be=kind.draws or may_give_nothing(named.function))
        return seen

    def _outcome(self, args: Any, kwargs: Any, named: Named) -> Outcome:
        """Tell what a function gives in this call."""
        path, outcomes = named.place.path, named.outcomes or []
        if named.is_tried:
            self._function = path
            with quiet(self.tape), self.lasting.kept((args, kwargs)):
                outcome, _ = observe(named.function, *pytree.tree_map_only(Tensor, torch.clone, (args, kwargs)))
            self._function = None
            return outcome
        count = self._count(path)
        if count >= len(outcomes):
            raise CaptureError(f"{path!r} was called {len(outcomes)} times in one run and more in another")
        return outcomes[count]

    def _count(self, path: str) -> int:
        return sum(1 for node in self.tape.graph.nodes if node.meta.get("function") == path)

    def refuse_fewer(self, functions: list[Named]) -> None:
        """Refuse a program that calls a named function less often here than in the run on values."""
        for named in functions:
            path, seen = named.place.path, len(named.outcomes or ())
            if not named.is_tried and (count := self._count(path)) < seen:
                raise CaptureError(
                    f"{path!r} is called {seen} times in a run on values, and {count} times when the model is recorded "
                    "on tensors without values: the program asks which of both it is; name another point, or use "
                    "backend='eager'"
                )

    def _kind(self, named: Named, args: Any, kwargs: Any) -> Kind:
        """Tell what a function does that fake tensors do not show."""
        path = named.place.path
        if path not in self.kinds:
            drawn, own_drawn = drawn_state(), self.generators.states()
            self._is_trying, self.tape.overheard = True, {}
            with quiet(self.tape), self.lasting.kept((args, kwargs)):
                given = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
                runs, moved = runs_without_values(named.function, *given), drawn_state() != drawn
            self.kinds[path] = Kind(draws=runs and moved, needs_values=not runs, reads=self.tape.overheard)
            self._is_trying, self.tape.overheard = False, None
            set_drawn_state(drawn)
            self.generators.put_back(own_drawn)
        return self.kinds[path]

    def _refuse_set(self, path: str, kind: Kind, given: Any) -> None:
        """Refuse a call on what the forward has set something in: the function would not find it at the next call."""
        objects = self.lasting.set_in(given)
        found = [*self.lasting.set_among(kind.reads, self.ran_whole), *(f"an object {name!r}" for name in objects)]
        if found:
            raise CaptureError(
                f"the forward sets {', '.join(found)} before it calls {path!r}, which reads it: a graph would not set "
                "it again: name another point, or use backend='eager'"
            )

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
            node = self.tape.graph.call_function(custom_function(function), arguments)
            node.meta["mutates"] = written(before)
            return self.marks.bind_call(value, node, ())

        return call


class _Observer(TorchFunctionMode):
    """Note the tensors that a leaf makes, in case one gets out by a side way."""

    def __init__(self, tape: Tape, leaf: str) -> None:
        super().__init__()
        self.tape, self.leaf = tape, leaf

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = without_values(func, args, kwargs or {})
        for tensor in tensors(value):
            self.tape.made_in_leaf.setdefault(id(tensor), (tensor, self.leaf))
        return value


@contextmanager
def recorded_calls(calls: Calls, functions: list[Named]) -> Iterator[None]:
    """Let ``calls`` stand for module calls, custom autograd functions and the named functions."""
    with ExitStack() as stack:
        stack.enter_context(patched(nn.Module, "__call__", calls.wrap_module_call))
        stack.enter_context(patched(nn.Module, "_apply", calls.wrap_conversion))
        stack.enter_context(patched(torch.autograd.Function, "apply", calls.wrap_apply))
        for named in functions:
            stack.enter_context(patched(named.place.owner, named.place.name, calls.wrap_function(named)))
        yield


def _has_state(module: nn.Module) -> bool:
    """Tell whether a call of ``module`` may do more than give a value: move statistics, run somebody's hooks."""
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return hooked or any(True for _ in module.buffers())
