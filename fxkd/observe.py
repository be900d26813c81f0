"""Look at the records of two models before anything is built on them, for connectors that are chosen by shape."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.auto import Lookup, refuse_unsized, sized
from fxkd.capture import Captured, Inputs, Layout
from fxkd.capture.blame import blamed
from fxkd.capture.discover import ValuesNeededError
from fxkd.capture.preserve import preserved
from fxkd.checks import check_calls, point_of, runs
from fxkd.eager import ParameterRecorder, RecorderManager
from fxkd.errors import CaptureError, PointError, Problems, SpecError
from fxkd.records import pick
from fxkd.sides import capture_sides
from fxkd.spec import Recorder, Reference, Spec


def with_connectors(
    student: nn.Module,
    teacher: nn.Module | None,
    spec: Spec,
    calls: Sequence[Inputs],
    set_mode: Callable[[nn.Module], Any],
) -> Spec:
    """Choose every connector that is ``auto``; both models are left as they were.

    They are run without values; models that cannot be captured run once on the first call.

    Args:
        student: The model that learns.
        teacher: The model it learns from; None if it is its own.
        spec: What has connectors to be chosen.
        calls: Example inputs.
        set_mode: Puts the teacher in the mode in which it will run.

    Raises:
        SpecError: There are no example inputs, points are not called, or no connector fits; one report.
        CaptureError: A model does not run on the inputs.
    """
    if not calls:
        refuse_unsized(spec)
    inputs = model_inputs(calls[0], spec)
    with in_mode(teacher, set_mode) if teacher is not None else nullcontext():
        try:
            lookup = _of_graphs(student, teacher, spec, inputs)
        except CaptureError:
            lookup = _of_run(student, teacher, spec, inputs)
    problems = Problems(dict(spec.lines))
    spec = sized(spec, lookup, problems)
    problems.raise_if_any()
    return spec


def example_calls(given: Any) -> list[Inputs]:
    """Read example inputs: none, one call, or a list of them.

    >>> len(example_calls(None)), len(example_calls(torch.zeros(2))), len(example_calls([torch.zeros(2), {"x": 1}]))
    (0, 1, 2)
    """
    if given is None:
        return []
    return [Inputs.of(call) for call in (given if isinstance(given, list) and given else [given])]


def model_inputs(inputs: Inputs, spec: Spec) -> Inputs:
    """Take away what is for the losses alone."""
    return Inputs(inputs.args, {name: value for name, value in inputs.kwargs.items() if name not in spec.inputs})


def _of_graphs(student: nn.Module, teacher: nn.Module | None, spec: Spec, inputs: Inputs) -> Lookup:
    layout = Layout.of(inputs, student)
    try:
        sides = capture_sides(student, teacher, spec, inputs, layout, sketch=True)
    except ValuesNeededError:
        sides = capture_sides(student, teacher, spec, inputs, layout)
    problems = Problems(dict(spec.lines))
    check_calls(*runs(student, teacher, sides, inputs, spec), spec, problems)
    problems.raise_if_any()
    return lookup_in(sides, spec)


def lookup_in(sides: Sequence[Captured], spec: Spec) -> Lookup:
    """Give what finds the value of a record in the captures, the student's first."""

    def lookup(reference: Reference, where: str) -> Any:
        captured = sides[0 if reference.from_student else -1]
        recorders = spec.student_recorders if reference.from_student else spec.teacher_recorders

        def of(name: str) -> Any:
            calls = captured.calls(point_of(recorders[name]))
            if not -len(calls) <= reference.record_idx < len(calls):
                raise SpecError(["the record is not there, so 'auto' has no size"])
            return _picked(calls[reference.record_idx].meta["val"], reference, where)

        return reference.of_records(of)

    return lookup


def _of_run(student: nn.Module, teacher: nn.Module | None, spec: Spec, inputs: Inputs) -> Lookup:
    """Record both models once on values."""
    records = {
        True: _recorded(student, spec.student_recorders, "student", inputs),
        False: _recorded(student if teacher is None else teacher, spec.teacher_recorders, "teacher", inputs),
    }

    def lookup(reference: Reference, where: str) -> Any:
        manager = records[bool(reference.from_student)]

        def of(name: str) -> Any:
            return _picked(manager.get_recorder(name).get_record_data(reference.record_idx, None), reference, where)

        return reference.of_records(of)

    return lookup


def _recorded(model: nn.Module, recorders: Mapping[str, Recorder], side: str, inputs: Inputs) -> RecorderManager:
    manager = RecorderManager(
        {name: {"type": r.type, "source": r.source} for name, r in recorders.items()}, where=f"{side}_recorders"
    )
    for recorder in manager.recorders.values():
        recorder.clone = not isinstance(recorder, ParameterRecorder)
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    manager.initialize(model)
    with blamed(side, model, inputs), preserved(model, values=True), torch.no_grad(), manager:
        model(*args, **kwargs)
    return manager


def _picked(value: Any, reference: Reference, where: str) -> Any:
    try:
        return value if reference.data_idx is None else pick(value, reference.data_idx, where)
    except PointError as error:
        raise SpecError([str(error)]) from error


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in train mode for a while."""
    with in_mode(model, nn.Module.train):
        yield


@contextmanager
def in_mode(model: nn.Module, set_mode: Callable[[nn.Module], Any]) -> Iterator[None]:
    """Put ``model`` for a while in the mode that ``set_mode`` puts it in."""
    flags = [(module, module.training) for module in model.modules()]
    set_mode(model)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
