"""What is left of a spec without its mistakes, so that the rest can be looked at."""

from dataclasses import replace
from typing import Any

from fxkd.errors import Problems
from fxkd.spec.spec import Spec


def sound(spec: Spec, problems: Problems) -> Spec:
    """Leave out of ``spec`` what a problem was found with, and the losses that need it."""

    def fine(section: str) -> dict[str, Any]:
        return {name: entry for name, entry in getattr(spec, section).items() if not problems.at(f"{section}.{name}")}

    recorders = {True: fine("student_recorders"), False: fine("teacher_recorders")}
    losses, mappings = fine("distill_losses"), fine("loss_forward_mappings")
    whole = {
        name: mapping
        for name, mapping in mappings.items()
        if name in losses
        and all(name in recorders[bool(r.from_student)] for r in mapping.values() for name in r.recorders)
    }
    return replace(
        spec,
        student_loss=False if problems.at("student_loss") else spec.student_loss,
        student_recorders=recorders[True],
        teacher_recorders=recorders[False],
        distill_deliveries=fine("distill_deliveries"),
        connectors=fine("connectors"),
        distill_losses={name: config for name, config in losses.items() if name in whole},
        loss_forward_mappings=whole,
    )
