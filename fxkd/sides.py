"""The two models of a distillation as captured graphs, and both as one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from fxkd.capture import Captured, Inputs, Layout, PointName, capture, split
from fxkd.checks import delivered_point, point_of
from fxkd.passes import join
from fxkd.passes.join import Side
from fxkd.spec import Spec


def known(layout: Layout, inputs: Inputs) -> dict[str, Tensor]:
    """Name the tensors of a call as the joint graph does."""
    return dict(zip(layout.names, split(inputs.args, inputs.kwargs)[1], strict=True))


def capture_sides(
    student: nn.Module, teacher: nn.Module | None, spec: Spec, inputs: Inputs, layout: Layout, *, sketch: bool = False
) -> tuple[Captured, ...]:
    """Capture the student as it trains and, if the spec asks anything of it, the teacher as it serves."""
    captured = capture_student(student, spec, inputs, layout, sketch=sketch)
    if teacher is None or not spec.reads_teacher:
        return (captured,)
    return captured, capture_teacher(teacher, spec, inputs, layout, sketch=sketch)


def capture_student(
    student: nn.Module, spec: Spec, inputs: Inputs, layout: Layout, *, sketch: bool = False
) -> Captured:
    """Capture the student with its points, and those at which it teaches itself; gradients as they are now."""
    delivered, grad = _delivered_points(spec, of_student=True), torch.is_grad_enabled() and spec.student_trainable
    taught = spec.teacher_recorders.values() if spec.self_distillation else ()
    points = [*map(point_of, (*spec.student_recorders.values(), *taught)), *delivered]
    return capture(
        student,
        inputs,
        name="student",
        points=points,
        whole=[] if spec.student_first else delivered,
        grad=grad,
        layout=layout,
        sketch=sketch,
    )


def capture_teacher(
    teacher: nn.Module, spec: Spec, inputs: Inputs, layout: Layout, *, sketch: bool = False
) -> Captured:
    """Capture the teacher with its points, without gradients unless it is to have them."""
    grad = spec.teacher_grad and torch.is_grad_enabled()
    delivered = _delivered_points(spec, of_student=False)
    points = [*map(point_of, spec.teacher_recorders.values()), *delivered]
    whole = delivered if spec.student_first else []
    return capture(teacher, inputs, name="teacher", points=points, whole=whole, grad=grad, layout=layout, sketch=sketch)


def _delivered_points(spec: Spec, *, of_student: bool) -> list[PointName]:
    return [delivered_point(one, gives=one.from_student is of_student) for one in spec.distill_deliveries.values()]


def join_sides(sides: Sequence[Captured], modules: Mapping[str, nn.Module], spec: Spec) -> fx.GraphModule:
    """Put the graphs into one on the real modules, the student's last, a teacher's without gradients."""
    held = dict(modules) | {f"{side.name}_constants": side.constants for side in sides}
    student, *teachers = sides
    first = [Side(teacher.name, teacher.graph, grad=spec.teacher_grad) for teacher in teachers]
    last = Side(student.name, student.graph, grad=spec.student_trainable)
    order = (last, *first) if spec.student_first else (*first, last)
    return join(order, held, spec.inputs, [side.name for side in first] if spec.returns_teacher else ())
