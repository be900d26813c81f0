"""Modules while a model is recorded: which are one node, which are opened, which are points."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from fxkd.capture.callables import custom_function
from fxkd.capture.captured import PointName
from fxkd.capture.contents import Contents
from fxkd.capture.discover import Outcome
from fxkd.capture.draws import drawn_state, set_drawn_state
from fxkd.capture.held import Parts
from fxkd.capture.kernels import without_values
from fxkd.capture.known import Known
from fxkd.capture.lasting import Lasting
from fxkd.capture.marks import Marks
from fxkd.capture.plan import Plan
from fxkd.capture.recording import quiet
from fxkd.capture.structure import storages, tensors, versions, written
from fxkd.capture.tape import Tape
from fxkd.capture.whole import call_on_values
from fxkd.errors import CaptureError, FxkdError
from fxkd.records import module_inputs


class InsideOneNode(CaptureError):
    """A point is called inside what is one node."""


class ModuleCalls:
    """Write the calls of modules, and of custom autograd functions, to a tape.

    Args:
        marks: Marks the calls of points on it.
        plan: What is to be captured.
        known: What is known of it: every module that is not opened is a leaf, one node.
        lasting: What outlasts the call, as it was when the recording began.
    """

    def __init__(self, marks: Marks, plan: Plan, known: Known, lasting: Lasting) -> None:
        self.marks, self.tape, self.lasting, self.parts = marks, marks.tape, lasting, Parts(plan.model)
        self.paths, self.points, self.contents = plan.paths, plan.modules, plan.contents
        self.generators = plan.contents.generators
        self.alone = known.alone(plan.contents.memory)
        self.opened, self.seen, self.leaves_draw = known.opened, known.leaves, known.draws
        self.must_open: set[int] = set()
        self.must_see: set[int] = set()
        self.ran_whole: set[int] = set()
        self._inside: list[nn.Module] = []
        self._whole: list[tuple[nn.Module, Any]] = []
        self._function: str | None = None
        self._leaf_counts: Counter[int] = Counter()

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
        with self._inside_leaf(module):
            return original(module, *args, **kwargs)

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
            contents = self.contents.of(module)
            if self._is_set(module, contents) or self.lasting.set_in((args, kwargs)):
                self.must_open.add(id(module))
            before = versions((args, kwargs, contents.tensors))
            with self._undrawn(), self._inside_leaf(module), _Observer(tape, path):
                value, outcome = self._run_leaf(original, module, *self.marks.given(points, (args, kwargs)))
            tape.left()
            is_changed = contents.changed()
            if is_changed:
                self._note_changed(module)
            self._whole.append((module, (args, kwargs)))
            self.lasting.note((args, kwargs))
            self.ran_whole.update(map(id, contents.modules))
            node = self._leaf_node(module, path, *arguments)
            node.meta.update(mutates=written(before), reads=storages(contents.tensors), stateful=contents.is_stateful)
            node.meta["effect"] = is_changed or not tensors(value)
            node.meta["takes"] = taken
        if outcome is not None:
            self._note_on_values(node, path, outcome, value, tensors((args, kwargs)))
        return self.marks.bind_call(value, node, points)

    def _note_on_values(self, node: fx.Node, path: str, outcome: Outcome, value: Any, given: list[Tensor]) -> None:
        """Note of a leaf what its run on values showed: a replay does not write, and gives new memory."""
        node.meta.update(
            by_values=path,
            own=1,  # the module is the first argument of the node
            storages=storages(value) | storages([given[index] for index in outcome.viewed]),
            mutates=storages([given[index] for index in outcome.changed]),
        )
        self.marks.guard_form(value, node)

    def _leaf_node(self, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Add the call of a leaf: one that does not run without values can be an operator in a compiled graph."""
        graph, target = self.tape.graph, f"{self.tape.name}.{path}"
        if id(module) not in self.seen:
            return graph.create_node("call_module", target, args, kwargs)
        given = (self.tape.argument(module), *args)
        return graph.create_node("call_function", call_on_values, given, kwargs, name=target.replace(".", "_"))

    def _is_set(self, module: nn.Module, contents: Contents) -> bool:
        """Tell whether the forward set something in a leaf, or in an object that it holds."""
        if contents.is_unset and not self.lasting.moved:
            return False
        is_set = self.parts.changed(module) or self.lasting.set_below(contents)
        contents.is_unset = not is_set and not self.lasting.moved
        return is_set

    def _note_changed(self, module: nn.Module) -> None:
        """Take a leaf that changed itself as it is now."""
        self.parts.note(module)
        self.lasting.note_module(module, self.contents.of(module))

    def open_set(self) -> None:
        """Open the leaves in which the forward set something after their call: they find it at the next."""
        with quiet(self.tape):
            for module, given in self._whole:
                if self._is_set(module, self.contents.of(module)) or self.lasting.set_in(given):
                    self.must_open.add(id(module))

    @contextmanager
    def _undrawn(self) -> Iterator[None]:
        """Put random generators back behind a leaf, which draws at every step."""
        drawn, own = drawn_state() if self.leaves_draw else None, self.generators.states()
        yield
        if drawn is not None:
            set_drawn_state(drawn)
        self.generators.put_back(own)

    @contextmanager
    def _inside_leaf(self, module: nn.Module) -> Iterator[None]:
        self._inside.append(module)
        try:
            yield
        finally:
            self._inside.pop()

    def _run_leaf(
        self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[Any, Outcome | None]:
        """Run a leaf on fake tensors; of one that does not run so, give what it gave on values, and what it did."""
        if id(module) not in self.seen:
            try:
                return original(module, *args, **kwargs), None
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
        if outcome is None:
            return original(module, *args, **kwargs), None
        return outcome.replay(tensors((args, kwargs)), self.tape.mode, self.alone), outcome

    def wrap_conversion(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for ``nn.Module._apply``: what is of a type and in a place already needs no new tensors."""

        def convert(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
            with quiet(self.tape), torch.no_grad():
                held = [*module.parameters(recurse), *module.buffers(recurse)]
                is_done = all(function(tensor) is tensor for tensor in held)
            return module if is_done else original(module, function, recurse)

        return convert

    def _refuse_inside_function(self, what: str) -> None:
        if self._function is not None:
            is_checkpoint = self._function == CheckpointFunction.__name__
            remedy = "checkpoint without it (use_reentrant=False)" if is_checkpoint else "use backend='eager'"
            raise InsideOneNode(
                f"{what!r} is called inside {self._function}, which is one node with a backward of its own: name "
                f"another point, or {remedy}"
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
