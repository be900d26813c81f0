"""Capture a model by running it: once for real if functions are named, then on fake tensors while it is recorded."""

import builtins
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from fxkd import patcher
from fxkd.capture.calls import Calls, Named, recorded_calls
from fxkd.capture.captured import Captured, PointCall, PointName
from fxkd.capture.discover import Discovery, discover
from fxkd.capture.inputs import Inputs, Layout, split
from fxkd.capture.lines import drawing_line, raising_line
from fxkd.capture.preserve import drawn_state, preserved
from fxkd.capture.recording import Recording
from fxkd.capture.regions import recorded_regions
from fxkd.capture.tape import LeakedTensor, Tape
from fxkd.capture.tidy import tidy
from fxkd.capture.tracked import PinningRange
from fxkd.capture.twins import fake_twins
from fxkd.errors import CaptureError, FxkdError
from fxkd.patcher import patched
from fxkd.points import Place, find_function, find_method, find_module, find_parameter, original

DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)
REMEDY = (
    "name the function or method that does it as a point, so that it stays one node that runs at every step, "
    "or use backend='eager'"
)


def capture(
    model: nn.Module,
    inputs: Inputs,
    *,
    name: str = "model",
    points: Iterable[PointName] = (),
    whole: Iterable[PointName] = (),
    grad: bool = True,
    layout: Layout | None = None,
) -> Captured:
    """Capture ``model`` as a graph in which every named point can be found.

    The model is left as it was, and so are the random generators and the grad mode, also when capture fails.

    Args:
        model: Any module; it is run, in the mode it is in.
        inputs: Example arguments. Their tensors become placeholders of free size.
        name: First part of the targets: the attribute under which the model will hang.
        points: The places to find again.
        whole: Those of them that stay one node because another value will take their place.
        grad: Whether the graph will run with gradients (a student) or without (a teacher).
        layout: How the placeholders are named; by default by the model's own arguments.

    Raises:
        CaptureError: The model does what a graph cannot hold; says where, and what to do.
        PointError: A point is not in the model or the program.

    >>> captured = capture(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), Inputs((torch.zeros(3, 4),)))
    >>> [str(node.target) for node in captured.graph.nodes]
    ['input', 'model.0', 'model.1', 'output']
    """
    layout = layout or Layout.of(inputs, model)
    plan = _Plan.of(model, inputs, layout, name, tuple(dict.fromkeys(points)), frozenset(whole), grad)
    with patcher.lock, torch.compiler.set_stance("force_eager"):
        functions, opened = _discovered(plan)
        for _ in range(len(plan.paths) + 1):
            try:
                return _recorded(plan, functions, opened)
            except _MustOpen as found:
                opened |= found.modules
    raise CaptureError("the points cannot be reached although every module is opened; use backend='eager'")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is captured, resolved."""

    model: nn.Module
    inputs: Inputs
    layout: Layout
    name: str
    points: tuple[PointName, ...]
    whole: frozenset[PointName]
    grad: bool
    paths: dict[int, str]
    modules: dict[int, tuple[PointName, ...]]
    places: dict[str, tuple[Place, tuple[PointName, ...]]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: Inputs,
        layout: Layout,
        name: str,
        points: tuple[PointName, ...],
        whole: frozenset[PointName],
        grad: bool,
    ) -> "_Plan":
        paths = {id(module): path for path, module in model.named_modules()}
        modules: dict[int, tuple[PointName, ...]] = {}
        places: dict[str, tuple[Place, tuple[PointName, ...]]] = {}
        for point in points:
            if point.kind.startswith("Module"):
                key = id(find_module(model, point.path))
                modules[key] = (*modules.get(key, ()), point)
            elif point.kind == "Parameter":
                find_parameter(model, point.path)
            else:
                find = find_function if point.kind.startswith("Function") else find_method
                place, named = places.get(point.path, (find(point.path), ()))
                places[point.path] = place, (*named, point)
        return cls(model, inputs, layout, name, points, whole, grad, paths, modules, places)


class _MustOpen(Exception):
    """A point lies inside modules that were taken for leaves."""

    def __init__(self, modules: set[int]) -> None:
        super().__init__()
        self.modules = modules


def _discovered(plan: _Plan) -> tuple[list[Named], set[int]]:
    """Say how each named function is kept, and which modules must be opened."""
    opened = {id(plan.model)} | _ancestors(plan)
    found = Discovery()
    if plan.places:
        with preserved(plan.model, values=True):
            places = [place for place, _ in plan.places.values()]
            found = discover(plan.model, plan.inputs, places, plan.modules.keys())
    functions = []
    for place, points in plan.places.values():
        holds_points = place.path in found.holders
        if holds_points and plan.whole.intersection(points):
            raise CaptureError(f"what {place.path!r} gives is replaced, so no point can lie inside it")
        outcomes = None if holds_points else found.outcomes[place.path]
        functions.append(Named(place, original(place), points, outcomes))
    return functions, opened | (found.opened & plan.paths.keys())


def _ancestors(plan: _Plan) -> set[int]:
    """Give the modules on the way to each module point, by every name that leads there."""
    found: set[int] = set()
    for path, module in plan.model.named_modules(remove_duplicate=False):
        if id(module) in plan.modules and path:
            names = path.split(".")
            found.update(id(plan.model.get_submodule(".".join(names[:depth]))) for depth in range(len(names)))
    return found


def _recorded(plan: _Plan, functions: list[Named], opened: set[int]) -> Captured:
    """Record one run in which the modules ``opened`` are seen through."""
    with preserved(plan.model, values=False):
        start = drawn_state()
        tape, calls = _trace(plan, functions, opened)
        drew = drawn_state() != start
    if calls.must_open - opened:
        raise _MustOpen(calls.must_open & plan.paths.keys())
    if drew:
        with preserved(plan.model, values=False):
            line = drawing_line(lambda: _trace(plan, functions, opened))
        raise CaptureError(
            f"{plan.name}: what Python's or numpy's generator gives at {line} would be the same at every step; {REMEDY}"
        )
    tidy(tape.graph)
    flags = tuple((module, module.training) for module in plan.model.modules() if id(module) in opened)
    return Captured(name=plan.name, graph=tape.graph, constants=tape.constants, flags=flags, notes=tuple(tape.notes))


def _trace(plan: _Plan, functions: list[Named], opened: set[int]) -> tuple[Tape, Calls]:
    """Run the model on fake tensors and write down what it does."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _, tensors, _ = split(plan.inputs.args, plan.inputs.kwargs)
    fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in tensors]
    with ExitStack() as stack:
        twins = stack.enter_context(fake_twins(plan.model, mode))
        tape = Tape(plan.name, twins, plan.paths)
        calls = Calls(tape, plan.paths, opened, plan.modules, mode)
        for name, fake in zip(plan.layout.names, fakes, strict=True):
            tape.placeholder(name, fake)
        given = plan.layout.fill(fakes)
        stack.enter_context(torch.set_grad_enabled(plan.grad))
        stack.enter_context(mode)
        stack.enter_context(recorded_calls(calls, functions))
        stack.enter_context(recorded_regions(tape))
        stack.enter_context(patched(builtins, "range", lambda original: PinningRange))
        stack.enter_context(Recording(tape))
        tape.listening = True
        value = _run(plan, given)
        for point in plan.points:
            if point.kind == "Parameter":
                tape.mark(find_parameter(plan.model, point.path), PointCall(point, 0))
        tape.graph.output(tape.argument(value)).meta["val"] = value
        tape.listening = False
    return tape, calls


def _run(plan: _Plan, given: Inputs) -> Any:
    """Run the model; say of every failure where it happened and what to do."""
    try:
        return plan.model(*given.args, **given.kwargs)
    except LeakedTensor as leak:
        raise _MustOpen({id(plan.model.get_submodule(leak.leaf))}) from leak
    except FxkdError:
        raise
    except DATA_DEPENDENT as error:
        raise CaptureError(
            f"{plan.name}: the value of a tensor decides what is run at {raising_line(error)}; {REMEDY}"
        ) from error
    except Exception as error:
        raise CaptureError(
            f"{plan.name}: {type(error).__name__} at {raising_line(error)} while it ran on tensors without values: "
            f"{error}. If it runs on real tensors, {REMEDY}"
        ) from error
