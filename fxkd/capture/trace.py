"""One recording: the model runs on fake tensors, with everything in place that writes down what it does."""

import builtins
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from fxkd.capture.attributes import Attributes
from fxkd.capture.blame import DoesNotRun
from fxkd.capture.captured import PointCall
from fxkd.capture.contents import Contents
from fxkd.capture.functions import Calls, recorded_calls
from fxkd.capture.heard import noted_reads
from fxkd.capture.inputs import Inputs, split
from fxkd.capture.known import Known
from fxkd.capture.lasting import Lasting
from fxkd.capture.lines import raising_line
from fxkd.capture.marks import Marks
from fxkd.capture.operations import Operations
from fxkd.capture.plan import Plan
from fxkd.capture.recording import Recording
from fxkd.capture.regions import recorded_regions
from fxkd.capture.tape import LeakedTensor, Tape
from fxkd.capture.tracked import PinningRange
from fxkd.capture.twins import fake_of, fake_twins
from fxkd.errors import CaptureError, FxkdError
from fxkd.patcher import patched
from fxkd.points import find_parameter

DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)
REMEDY = (
    "name the function or method that does it as a point, so that it stays one node that runs at every step, "
    "or use backend='eager'"
)


class MustOpen(Exception):
    """A point, or a tensor that gets out by a side way, lies inside modules or functions that were one node."""

    def __init__(self, modules: set[int], functions: set[str] | None = None) -> None:
        super().__init__()
        self.modules, self.functions = modules, functions or set()


class MustSee(Exception):
    """Leaves do not run without values."""

    def __init__(self, modules: set[int]) -> None:
        super().__init__()
        self.modules = modules


def trace(plan: Plan, known: Known, mode: FakeTensorMode | None = None) -> Tape:
    """Run the model and write down what it does; the caller puts its state back.

    ``mode`` is that of the run before, if the model still holds what that left behind.

    Raises:
        MustOpen: More modules must be opened.
        MustSee: What leaves give must be seen on values.
        CaptureError: The model does what a graph cannot hold.
    """
    is_first, mode = mode is None, mode or plan.fakes.mode()
    with ExitStack() as stack:
        stack.enter_context(plan.caches.emptied())
        twins = stack.enter_context(fake_twins(plan.model, plan.fakes.twin))
        tape = Tape(plan.name, twins, plan.paths, mode)
        lasting = Lasting(plan.model, plan.contents if is_first else Contents(plan.model), moved=not is_first)
        marks = Marks(tape, plan.whole)
        calls = Calls(marks, plan, known, lasting)
        fakes = _placeholders(plan, tape, mode)
        plan.fakes.note([*(twin for twin, _ in twins.values()), *fakes])
        given = plan.layout.fill(fakes)
        attributes = Attributes.of(plan.model)
        stack.enter_context(torch.set_grad_enabled(plan.grad))
        stack.enter_context(mode)
        stack.enter_context(recorded_calls(calls, known.functions))
        stack.enter_context(recorded_regions(tape))
        stack.enter_context(patched(builtins, "range", lambda original: PinningRange))
        stack.enter_context(noted_reads(tape))
        stack.enter_context(Recording(tape, Operations(tape, plan.operations)))
        tape.listening = True
        value = _run(plan, given, calls)
        tape.listening = False
        for point in plan.points:
            if point.kind == "Parameter":
                tape.mark(find_parameter(plan.model, point.path), PointCall(point, 0))
        tape.graph.output(_given_back(plan, tape, value)).meta["val"] = value
        _refuse_set(plan, known, calls)
        tape.written = _written(plan, tape, attributes.changed(plan.paths, calls.ran_whole)) if is_first else []
    if calls.must_open - known.opened:
        raise MustOpen(calls.must_open & plan.paths.keys())
    calls.refuse_fewer(known.functions)
    return tape


def _given_back(plan: Plan, tape: Tape, value: Any) -> Any:
    """Turn what the model gives into an argument; what was filled by a side way opens what filled it."""
    try:
        return tape.argument(value)
    except LeakedTensor as leak:
        raise _must_open(plan, leak) from leak


def _written(plan: Plan, tape: Tape, changed: list[str]) -> list[str]:
    """List what the forward itself changed: what named functions set, they set again at every run."""
    by_functions = {f"{plan.paths[key]}.{name}".lstrip(".") for key, name in tape.unseen if key in plan.paths}
    return [where for where in changed if where not in by_functions]


def _refuse_set(plan: Plan, known: Known, calls: Calls) -> None:
    """Open what finds at the next call what the forward set."""
    calls.open_set()
    if not calls.must_open - known.opened:
        try:
            calls.refuse_set()
        except LeakedTensor as leak:
            raise _must_open(plan, leak) from leak


def _must_open(plan: Plan, leak: LeakedTensor) -> MustOpen:
    modules = {key for key, path in plan.paths.items() if path in leak.takers}
    return MustOpen(modules, {path for path in plan.places if path in leak.takers})


def _placeholders(plan: Plan, tape: Tape, mode: FakeTensorMode) -> list[Tensor]:
    """Make a fake of each input, each its own even where the same tensor is given twice."""
    fakes: list[Tensor] = []
    _, tensors, _ = split(plan.inputs.args, plan.inputs.kwargs)
    for name, tensor in zip(plan.layout.names, tensors, strict=True):
        fake = fake_of(mode, tensor)
        if tape.node_of(fake) is not None or id(fake) in tape.attributes:
            with mode:
                fake = torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype, device=fake.device)
        tape.placeholder(name, fake)
        fakes.append(fake)
    return fakes


def _run(plan: Plan, given: Inputs, calls: Calls) -> Any:
    """Run the model; say of every failure where it happened and what to do."""
    try:
        value = plan.model(*given.args, **given.kwargs)
    except LeakedTensor as leak:
        raise _must_open(plan, leak) from leak
    except Exception as error:
        if calls.must_see:
            raise MustSee(calls.must_see) from error
        if isinstance(error, FxkdError):
            raise
        raise explained(plan, error) from error
    if calls.must_see:  # the program caught what the leaf raised
        raise MustSee(calls.must_see)
    return value


def explained(plan: Plan, error: Exception) -> CaptureError:
    """Say of a failure where it happened and what to do."""
    line = raising_line(error)
    if isinstance(error, DATA_DEPENDENT):
        return CaptureError(f"{plan.name}: the value of a tensor decides what is run at {line}; {REMEDY}")
    return DoesNotRun(
        f"{plan.name}: {type(error).__name__} at {line} while it ran on tensors without values: {error}. If it runs on "
        f"real tensors, {REMEDY}"
    )
