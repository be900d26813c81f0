"""A distillation on one screen: who learns from whom, at which points, by which losses, and what is never run."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from fxkd.program import Program
from fxkd.spec import Reference, Spec, StudentLoss


def summary(
    models: Mapping[str, nn.Module], own: Mapping[str, nn.Module], spec: Spec, programs: list[Program], how: list[str]
) -> str:
    """Write the summary that ``print(distiller)`` shows.

    Args:
        models: The student first, then the teachers, by name.
        own: What was built for the distillation: ``connectors`` and ``losses``.
        spec: What was asked for.
        programs: What was captured.
        how: Backend, compilation and the like, one text each.
    """
    lines = ["Distiller"]
    for name, model in models.items():
        lines.append(f"  {name}: {type(model).__name__}, {_parameters(model)}, {_mode(model)}")
    lines += [f"  {text}" for text in how]
    lines += _section("records", _records(spec))
    lines += _section("deliveries", _deliveries(spec))
    lines += _section("connectors", _built(own["connectors"]))
    lines += _section("losses", _losses(spec, own["losses"]))
    lines += [f"  student's own loss: {_own_loss(spec.student_loss, programs)}"]
    lines += _section("graphs", _graphs(programs))
    return "\n".join(lines)


def _section(title: str, rows: Iterator[str]) -> list[str]:
    found = list(rows)
    return [f"  {title}", *(f"    {row}" for row in found)] if found else []


def _parameters(model: nn.Module) -> str:
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    which = "all trained" if trained == count else "frozen" if not trained else f"{trained:,} trained"
    return f"{count:,} parameters ({which})" if count else "no parameters"


def _mode(model: nn.Module) -> str:
    flags = {module.training for module in model.modules()}
    return "train and eval mode, by module" if len(flags) == 2 else "train mode" if True in flags else "eval mode"


def _records(spec: Spec) -> Iterator[str]:
    for side, recorders in (("student", spec.student_recorders), ("teacher", spec.teacher_recorders)):
        for name, recorder in recorders.items():
            yield f"{side}.{name}: {recorder.type} {recorder.source!r}"


def _deliveries(spec: Spec) -> Iterator[str]:
    for name, delivery in spec.distill_deliveries.items():
        way = "student -> teacher" if delivery.from_student else "teacher -> student"
        target = f" to {delivery.target!r}" if delivery.target is not None else ""
        part = f"[{delivery.data_idx!r}]" if delivery.data_idx is not None else ""
        yield f"{name}: {way}, {delivery.type} {delivery.path!r}{part}{target}"


def _built(modules: nn.Module) -> Iterator[str]:
    for name, module in modules.named_children():
        yield f"{name}: {type(module).__name__}, {_parameters(module)}"


def _losses(spec: Spec, modules: nn.Module) -> Iterator[str]:
    built = dict(modules.named_children())
    for name, mapping in spec.loss_forward_mappings.items():
        arguments = ", ".join(f"{argument}={_reference(reference)}" for argument, reference in mapping.items())
        note = "" if "loss" in name else "  (not trained: its name lacks 'loss')"
        yield f"{name}: {type(built[name]).__name__}({arguments}){note}"


def _reference(reference: Reference) -> str:
    if reference.from_input is not None:
        return f"input {reference.from_input}"
    text = f"{'student' if reference.from_student else 'teacher'}.{', '.join(reference.recorders)}"
    text += f"[{reference.record_idx}]" if reference.record_idx else ""
    text += f"[{reference.data_idx!r}]" if reference.data_idx is not None else ""
    return text + (f" -> {reference.connector}" if reference.connector else "")


def _own_loss(asked: StudentLoss | str | bool, programs: list[Program]) -> str:
    if isinstance(asked, StudentLoss):
        weight = f"{asked.weight:g}" if isinstance(asked.weight, (int, float)) else "by a schedule"
        return f"{asked.type}, weight {weight}"
    if not asked:
        return "left out (student_loss: false)"
    if not programs:
        return "what the student returns, if it returns one"
    node = programs[-1].module.graph.output_node()
    result: Mapping[str, object] = node.args[0]  # type: ignore[assignment]
    return "none: the student returns none" if result["student_loss"] is None else "what the student returns"


def _graphs(programs: list[Program]) -> Iterator[str]:
    for program in programs:
        pruned = program.module.meta.get("pruned")
        count = 0 if pruned is None else pruned.number_of_nodes()
        layout = program.layout
        shapes = ", ".join(map(_input, layout.names, layout.kinds))
        yield f"{len(program.module.graph.nodes)} nodes ({shapes}); {count} that feed no loss and no output are pruned"
    if not programs:
        yield "none yet: captured at the first call"


def _input(name: str, kind: tuple[torch.dtype, torch.device, int]) -> str:
    return f"{name}: {kind[2]}-d {str(kind[0]).removeprefix('torch.')}"
