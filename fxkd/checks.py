"""Checks that need the models: every point is there and is called, every delivery fits. All problems in one report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxkd.capture import Captured, Inputs, PointName
from fxkd.errors import PointError, Problems
from fxkd.operations import MARK, split_operation
from fxkd.passes.insert_deliveries import takers_of
from fxkd.points import find_function, find_method, find_module, find_parameter
from fxkd.records import pick
from fxkd.spec import Delivery, Recorder, Reference, Spec, StudentLoss
from fxkd.spec.vocabulary import DELIVERIES
from fxkd.teachers import one_teacher, teachers_in, what_it_is
from fxkd.unreached import why_unreached


def check_models(student: object, teacher: object, problems: Problems) -> None:
    """Refuse what is no model, and one object in both places."""
    if not isinstance(student, nn.Module):
        problems.add("student", f"is {what_it_is(student)}; give an nn.Module")
    if isinstance(teacher, nn.Module) and any(student is one for one in teachers_in(teacher).values()):
        problems.add(
            "teacher",
            "is the student itself; give another module (copy.deepcopy makes one), or None for a student that learns "
            "from itself",
        )


def read_both(
    student: object, teacher: object, source: Any, problems: Problems
) -> tuple[nn.Module | None, Spec, bool, bool]:
    """Read what stands for the teacher, and the spec; tell also whether there are models, and whether a spec was read.

    Several teachers become one module, and the spec of a student without a teacher has it learn from itself.
    """
    one = one_teacher(teacher, problems)
    check_models(student, one, problems)
    are_models = not problems.found
    spec = Spec.read(source, problems)
    is_read = not problems.found or spec != Spec()
    if spec.data_free is not None:
        problems.add("data_free", "prepare distils on given data; fxkd.DataFree.from_spec takes this spec")
    if teacher is not None and spec.self_distillation:
        problems.add("self_distillation", "is true, but there is a teacher; give prepare teacher=None, or take it out")
    for option in ("teacher_trainable", "teacher_ckpt") if teacher is None else ():
        if getattr(spec, option):
            problems.add(option, "is given, but there is no teacher: the student is its own; leave it out")
    if teacher is None:
        spec = spec.self_taught()
    if teacher is None and spec.distill_deliveries:
        problems.add("distill_deliveries", "there is no other model to deliver to: the student is its own teacher")
    return one, spec, are_models, is_read


def runs(
    student: nn.Module, teacher: nn.Module | None, sides: Sequence[Captured], inputs: Inputs, spec: Spec
) -> tuple["Ran", "Ran | None"]:
    """Give the runs of student and teacher; a student that is its own teacher has one, an idle teacher none."""
    of_student = Ran(student, sides[0], inputs)
    if teacher is None or len(sides) == 1:
        return of_student, of_student if spec.self_distillation else None
    return of_student, Ran(teacher, sides[1], inputs)


def check_paths(student: object, teacher: object, spec: Spec, problems: Problems) -> None:
    """Check that every path of the spec names something, and that there is anything to do at all."""
    recorders_of = {"student_recorders": (student, spec.student_recorders)}
    recorders_of["teacher_recorders"] = (student if spec.self_distillation else teacher, spec.teacher_recorders)
    for section, (model, recorders) in recorders_of.items():
        for name, recorder in recorders.items():
            check_path(model, point_of(recorder), f"{section}.{name}.source", problems)
    for name, delivery in spec.distill_deliveries.items():
        for model, is_student in ((student, True), (teacher, False)):
            gives = delivery.from_student is is_student
            if not is_student and not delivery.type.startswith("Module") and delivery.target is None:
                continue  # a function is the same for both
            key = DELIVERIES[delivery.type] if gives or delivery.target is None else "target"
            check_path(model, delivered_point(delivery, gives=gives), f"distill_deliveries.{name}.{key}", problems)
    asked = (spec.distill_losses, spec.distill_deliveries, spec.student_recorders, spec.teacher_recorders)
    if not problems.found and not any(asked) and not isinstance(spec.student_loss, StudentLoss):
        problems.add(
            "the spec",
            "asks for nothing: there is no loss, no delivery and no recorder in it; give 'pairs', or 'distill_losses' "
            "with 'student_recorders', 'teacher_recorders' and 'loss_forward_mappings'",
        )


def delivered_point(delivery: Delivery, *, gives: bool) -> PointName:
    """Give the point of a delivery in the model that gives, or in the one that takes."""
    return PointName(delivery.type, delivery.path if gives or delivery.target is None else delivery.target)


def point_of(recorder: Recorder) -> PointName:
    """Give the point that a recorder names; a gradient is taken where a module's output is."""
    if recorder.type == "ModuleOutputs" and MARK in recorder.source:
        return PointName("Operation", recorder.source)
    return PointName("ModuleOutputs" if recorder.is_of_gradients else recorder.type, recorder.source)


def check_path(model: object, point: PointName, where: str, problems: Problems) -> None:
    """Check that a point names something in ``model``."""
    try:
        if point.kind.startswith("Function"):
            find_function(point.path)
        elif point.kind.startswith("Method"):
            find_method(point.path)
        elif not isinstance(model, nn.Module):
            return  # said by check_models
        elif point.kind == "Parameter":
            find_parameter(model, point.path)
        elif point.kind == "Operation":
            find_module(model, split_operation(point.path)[0])
        else:
            find_module(model, point.path)
    except PointError as error:
        problems.add(where, str(error))


@dataclass(frozen=True, slots=True)
class Ran:
    """A model and what its run showed: for messages about what it did not."""

    model: nn.Module
    captured: Captured
    inputs: Inputs

    def calls(self, point: PointName) -> list[fx.Node]:
        """List the calls of a point."""
        return self.captured.calls(point)

    def why_never(self, point: PointName) -> str:
        """Say that a point exists and is not used, and why."""
        return why_unreached(self.model, self.captured.name, point, self.inputs)


def check_calls(student: Ran, teacher: Ran | None, spec: Spec, problems: Problems) -> None:
    """Check what only a run shows: that points are called, often enough, and that deliveries fit.

    A spec that asks nothing of the teacher needs no run of it.
    """
    check_records(student, "student_recorders", spec.student_recorders, problems)
    if teacher is not None:
        check_records(teacher, "teacher_recorders", spec.teacher_recorders, problems)
        for name, delivery in spec.distill_deliveries.items():
            both = (student, teacher) if delivery.from_student else (teacher, student)
            _check_delivery(*both, delivery, f"distill_deliveries.{name}", problems)
    for loss, mapping in spec.loss_forward_mappings.items():
        for argument, reference in mapping.items():
            side = student if reference.from_student else teacher
            for name in reference.recorders:
                if side is None:
                    continue
                _check_index(name, reference, side, spec, f"loss_forward_mappings.{loss}.{argument}", problems)


def check_records(side: Ran, section: str, recorders: Mapping[str, Recorder], problems: Problems) -> None:
    """Check that every recorder's point was called."""
    for name, recorder in recorders.items():
        if not side.calls(point_of(recorder)):
            problems.add(f"{section}.{name}.source", side.why_never(point_of(recorder)))


def _check_delivery(giver: Ran, taker: Ran, delivery: Delivery, where: str, problems: Problems) -> None:
    point, there = delivered_point(delivery, gives=True), delivered_point(delivery, gives=False)
    given, taken = giver.calls(point), taker.calls(there)
    for side, calls, name in ((giver, given, point), (taker, taken, there)):
        if not calls:
            problems.add(where, side.why_never(name))
    if not given or not taken:
        return
    gives, takes = giver.captured.name, taker.captured.name
    if len(given) < len(taken):
        problems.add(
            where,
            f"the {gives} calls {point.path!r} {_times(given)}, the {takes} {_times(taken)}: "
            f"the {takes} would wait for values that never come",
        )
    if len(given) > delivery.max_keep_data:
        problems.add(
            f"{where}.max_keep_data",
            f"is {delivery.max_keep_data}, but the {gives} calls {point.path!r} {_times(given)}; "
            f"set it to {len(given)}",
        )
    if delivery.is_of_inputs and len(takers_of(taker.captured.graph, there, takes)) < len(taken):
        problems.add(where, f"the inputs of {there.path!r} cannot be replaced: a point lies inside it; name another")
    for index, (source, target) in enumerate(zip(given, taken, strict=False)):
        try:
            one, other = (_part_of(node.meta["val"], delivery, where) for node in (source, target))
        except PointError as error:
            problems.found.append(str(error))
            return
        difference = _difference(one, other, gives, takes)
        if difference:
            problems.add(where, f"call {index} of {point.path!r} {difference}")


def _part_of(value: Any, delivery: Delivery, where: str) -> Any:
    return value if delivery.data_idx is None else pick(value, delivery.data_idx, where)


def _times(calls: Iterable[Any]) -> str:
    count = len(list(calls))
    return "once" if count == 1 else f"{count} times"


def _difference(given: Any, taken: Any, gives: str, takes: str) -> str:
    """Say how a value differs in form from the one it replaces; nothing if it fits."""
    (left, left_form), (right, right_form) = pytree.tree_flatten(given), pytree.tree_flatten(taken)
    if left_form != right_form:
        return f"gives a {type(given).__name__} in the {gives} that is built otherwise than in the {takes}"
    for one, other in zip(left, right, strict=True):
        if _form(one) != _form(other):
            return (
                f"gives {_form(one)} in the {gives} and {_form(other)} in the {takes}: a delivered value must fit "
                "where it is put"
            )
    return ""


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def _check_index(name: str, reference: Reference, side: Ran, spec: Spec, where: str, problems: Problems) -> None:
    recorder = (spec.student_recorders if reference.from_student else spec.teacher_recorders)[name]
    calls = side.calls(point_of(recorder))
    if calls and not -len(calls) <= reference.record_idx < len(calls):
        problems.add(
            f"{where}.record_idx",
            f"is {reference.record_idx}, but the {side.captured.name} calls {recorder.source!r} "
            f"{_times(calls)} in a forward (the first is 0)",
        )
