"""From models and spec to one runnable graph: captured graphs -> joint graph -> rewritten graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase

from fxkd.capture import Captured, Inputs, Layout, split
from fxkd.capture.guards import guard, guard_form
from fxkd.checks import Ran, check_calls, delivered_point, point_of, runs
from fxkd.errors import Problems
from fxkd.modes import merge
from fxkd.passes import InsertDeliveries, InsertGradients, InsertLosses, InsertRecords, ProtectRecords, Prune, run
from fxkd.passes.insert_losses import OwnLoss, Source
from fxkd.shapes import Flow
from fxkd.sides import capture_sides, join_sides, known
from fxkd.spec import Reference, Spec, StudentLoss
from fxkd.teachers import Teachers


@dataclass(frozen=True, slots=True)
class Situation:
    """What a graph was captured under, and holds for.

    Args:
        sides: The captured student and teacher: the modes of their modules and what was read from them.
        context: The grad mode and autocast: a model may ask for them.
    """

    sides: tuple[Captured, ...]
    context: tuple[Any, ...]

    def holds(self) -> bool:
        """Tell whether the models and the caller are as they were."""
        return self.context == context() and self.fits_models()

    def fits_models(self) -> bool:
        """Tell whether the models are as they were, whoever calls."""
        return all(side.holds() for side in self.sides)

    @property
    def hooks(self) -> tuple[Any, ...]:
        """The hooks of every module."""
        return tuple(side.surroundings[1] for side in self.sides)

    @property
    def flags(self) -> dict[nn.Module, bool]:
        """The mode of every module."""
        return {module: flag for side in self.sides for module, flag in side.flags}


@dataclass(slots=True)
class Program:
    """A joint graph and the calls it is good for.

    Args:
        layout: The form of call that was captured.
        situations: What it holds for: train and eval mode are two, where one graph is good for both.
        module: The joint graph on the real modules.
        seen: Sizes of inputs (see ``sizes``) on which every guard of the graph was found to hold.
    """

    layout: Layout
    situations: list[Situation]
    module: fx.GraphModule
    compiled: Any = None
    seen: set[tuple[Any, ...]] = field(default_factory=set)
    is_certain: bool = True
    may_set: bool = False

    def __post_init__(self) -> None:
        """Note whether sizes of inputs decide all, so that what once held for them holds again; and who keeps state."""
        guards = [node for node in self.module.graph.nodes if node.target in (guard, guard_form)]
        self.is_certain = not any(_looks_at_value(node.args[0]) for node in guards)
        kinds = [node.meta for node in self.module.graph.nodes]
        self.may_set = any(meta.get("function") or meta.get("effect") for meta in kinds)

    def fits(self, spec: Any, tensors: list[Tensor], constants: list[Any]) -> bool:
        """Tell whether a call is of the captured form, and the models are as when it was captured."""
        return self.layout.matches(spec, tensors, constants) and self.holds()

    def holds(self) -> bool:
        """Tell whether the models are as when it was captured."""
        return any(situation.holds() for situation in self.situations)

    def take_in(self, other: "Program") -> bool:
        """Become good for what ``other`` is good for, if the graphs are one; tell whether they are."""
        if not self.layout.is_like(other.layout):
            return False
        if not merge(self.module, other.module, [past.flags for past in self.situations], other.situations[0].flags):
            return False
        self.situations += other.situations
        self.seen |= other.seen
        return True


def _looks_at_value(node: Any) -> bool:
    """Tell whether a decision is by what a module holds or gave, or a named function gave, and by no size."""
    if not isinstance(node, fx.Node) or node.op == "call_method" or node.target is len:
        return False
    if node.op in ("call_module", "get_attr") or "function" in node.meta:
        return True
    return any(_looks_at_value(source) for source in node.all_input_nodes)


def sizes(tensors: list[Tensor]) -> tuple[Any, ...]:
    """Give what a program may ask of its inputs besides their values: sizes, order of memory, gradients."""
    return tuple((tensor.shape, tensor.stride(), tensor.requires_grad) for tensor in tensors)


def context() -> tuple[Any, ...]:
    """Give the grad mode, the default type and the autocast that are in force."""
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        *((kind, torch.get_autocast_dtype(kind)) for kind in kinds),
    )


def ignore(remarks: list[str]) -> None:
    """Warn of nothing."""


def build(
    student: nn.Module,
    teacher: nn.Module | None,
    modules: Mapping[str, nn.Module],
    spec: Spec,
    inputs: Inputs,
    extra: Mapping[str, Tensor],
    *,
    clone_records: bool = True,
    return_records: bool = False,
    passes: tuple[PassBase, ...] = (),
    prune: bool = True,
    warn: Callable[[list[str]], None] = ignore,
) -> Program:
    """Capture both models on ``inputs``, join them with the losses and rewrite the joint graph.

    A teacher of which the spec asks nothing is left out.

    Args:
        student: The model that learns.
        teacher: The model it learns from; None if it is its own.
        modules: What the targets of the joint graph start with -> the object.
        spec: What to record, deliver and compare.
        inputs: Arguments for both models.
        extra: The spec's own ``inputs`` of the same call, as far as they are known.
        clone_records: Whether a record that is written to later keeps the value at its point.
        return_records: Whether the records are returned.
        passes: Further rewrites.
        prune: Whether to leave out what feeds no loss and no output.
        warn: Gets what is probably unmeant.

    Raises:
        SpecError: Points that are never called, deliveries and shapes that do not fit: all in one report.
        CaptureError: A model cannot be a graph.
    """
    layout = Layout.of(inputs, student)
    sides = capture_sides(student, teacher, spec, inputs, layout)
    warn(_checked(runs(student, teacher, sides, inputs, spec), spec, modules, known(layout, inputs) | dict(extra)))
    how = {"clone_records": clone_records, "return_records": return_records, "several": isinstance(teacher, Teachers)}
    steps = (*default_passes(spec, **how), *passes)
    steps = steps if prune else tuple(step for step in steps if not isinstance(step, Prune))
    joint = run(join_sides(sides, modules, spec), steps)
    seen = {sizes(split(inputs.args, inputs.kwargs)[1])}
    return Program(layout, [Situation(sides, context())], joint, seen=seen)


def _checked(
    ran: tuple[Ran, Ran | None], spec: Spec, modules: Mapping[str, Any], given: Mapping[str, Tensor]
) -> list[str]:
    """Check calls and shapes; give what is probably unmeant."""
    problems, (student, teacher) = Problems(dict(spec.lines)), ran
    check_calls(student, teacher, spec, problems)
    flow = Flow(
        student=student.captured,
        teacher=None if teacher is None else teacher.captured,
        spec=spec,
        modules=modules,
        given=given,
        problems=problems,
    ).run()
    problems.raise_if_any()
    return flow.remarks


def default_passes(
    spec: Spec, *, clone_records: bool = True, return_records: bool = False, several: bool = False
) -> tuple[PassBase, ...]:
    """List the passes that a spec asks for, in running order; ``several`` tells that there is more than one teacher."""
    recorders = {"student": spec.student_recorders, "teacher": spec.teacher_recorders}
    values, gradients = (
        {side: {n: point_of(r) for n, r in entries.items() if r.is_of_gradients is kind} for side, entries in given}
        for kind, given in ((False, recorders.items()), (True, recorders.items()))
    )
    losses = {
        loss: {argument: source_of(reference) for argument, reference in mapping.items()}
        for loss, mapping in spec.loss_forward_mappings.items()
    }
    returned = {side: list(entries) for side, entries in recorders.items()} if return_records else {}
    where, own = {"teacher": "student"} if spec.self_distillation else {}, own_loss(spec.student_loss)
    return (
        *(InsertRecords(values[side], side, where.get(side)) for side in ("teacher", "student")),
        insert_deliveries(spec),
        *(InsertGradients(gradients[side], side, where.get(side)) for side in gradients if gradients[side]),
        InsertLosses(
            losses,
            own,
            spec.return_output,
            returned,
            trained=("teacher",) if spec.teacher_trainable else (),
            gradients={side: list(entries) for side, entries in gradients.items() if entries},
            one_model=spec.self_distillation,
            several=several,
        ),
        *(
            (ProtectRecords(() if spec.teacher_grad or spec.self_distillation else ("teacher",)),)
            if clone_records
            else ()
        ),
        Prune(("student", "teacher") if spec.teacher_trainable else ("student",)),
    )


def insert_deliveries(spec: Spec) -> InsertDeliveries:
    """Give the pass that hands values over from one model to the other."""
    deliveries = spec.distill_deliveries
    source, target = ("student", "teacher") if spec.student_first else ("teacher", "student")
    return InsertDeliveries(
        {name: delivered_point(delivery, gives=True) for name, delivery in deliveries.items()},
        source,
        target,
        {name: delivered_point(delivery, gives=False) for name, delivery in deliveries.items()},
        {name: delivery.data_idx for name, delivery in deliveries.items() if delivery.data_idx is not None},
        is_cut=spec.cuts_deliveries and not spec.student_first,
    )


def source_of(reference: Reference) -> Source:
    """Say in the words of the passes where an argument comes from."""
    return Source(
        side="student" if reference.from_student else "teacher",
        recorder=reference.recorder or "",
        record_idx=reference.record_idx,
        data_idx=reference.data_idx,
        connector=reference.connector,
        connector_idx=reference.connector_idx,
        detach=reference.detach,
        input=reference.from_input,
    )


def own_loss(student_loss: StudentLoss | str | bool) -> OwnLoss | None:
    """Say in the words of the passes what the student's own loss is."""
    if isinstance(student_loss, StudentLoss):
        args = {name: None if v == "from_output" else v["from_input"] for name, v in student_loss.args.items()}
        return OwnLoss(args=args)
    return OwnLoss() if student_loss else None
