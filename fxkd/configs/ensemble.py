"""Several teachers that share a point and a loss of soft labels, as one teacher."""

import inspect
from collections.abc import Mapping
from typing import Any

from fxkd import registry
from fxkd.configs.reading import Reading
from fxkd.errors import SpecError

TEMPERATURES = ("tau", "T")
OF_FEATURES = ("ChannelWiseDivergence",)  # its softmax is over positions


def write_ensembles(groups: list[list[dict[str, Any]]], where: str, reading: Reading) -> dict[str, Any]:
    """Compare the student with what the teachers say together, as MEAL V2 does (arXiv 2009.08453)."""
    told = "use_meal: the teachers share a point and a loss, so the student learns from their mean soft label"
    reading.notes.add(where, f"{told} (set use_meal=False for one loss with each)")
    sections = ("student_recorders", "teacher_recorders", "connectors", "distill_losses", "loss_forward_mappings")
    spec: dict[str, Any] = {section: {} for section in sections}
    for group in groups:
        _ensemble(group, spec)
        name = list(spec["distill_losses"])[-1]
        reading.move(f"{group[0]['where']}.head.loss", f"distill_losses.{name}")
        reading.move(f"{group[0]['where']}.student_module", f"student_recorders.{name}")
    return spec


def _ensemble(group: list[dict[str, Any]], spec: dict[str, Any]) -> None:
    first = group[0]["pair"]
    name = _free("loss_" + first["student"].replace(".", "_"), spec["distill_losses"])
    spec["student_recorders"][name] = {"type": "ModuleOutputs", "source": first["student"]}
    recorders = [f"{name}_{one['teacher']}" for one in group]
    for recorder, one in zip(recorders, group, strict=True):
        source = f"{one['teacher']}.{one['pair']['teacher']}"
        spec["teacher_recorders"][recorder] = {"type": "ModuleOutputs", "source": source}
    loss = first["loss"]
    spec["connectors"][f"{name}_teachers"] = {"type": "SoftLabelEnsemble", "tau": temperature(loss)}
    spec["distill_losses"][name] = loss
    student: dict[str, Any] = {"from_student": True, "recorder": name}
    if "student_connector" in first:
        spec["connectors"][f"{name}_student"] = first["student_connector"]
        student["connector"] = f"{name}_student"
    teachers = {"from_student": False, "recorder": recorders, "connector": f"{name}_teachers"}
    of_student, of_teacher = _arguments(loss)
    spec["loss_forward_mappings"][name] = {of_student: student, of_teacher: teachers}


def temperature(loss: Any) -> Any:
    """Give the temperature of a loss of soft labels; nothing for other losses.

    >>> temperature({"type": "KLDivergence"}), temperature({"type": "L2Loss"})
    (1.0, None)
    """
    if not isinstance(loss, Mapping) or loss.get("type") in OF_FEATURES:
        return None
    try:
        takes = dict(inspect.signature(registry.losses.get(loss.get("type"))).parameters)
    except SpecError:
        takes = {}
    defaults = {name: takes[name].default for name in TEMPERATURES if name in takes}
    given = defaults | {name: loss[name] for name in TEMPERATURES if name in loss}
    return next(iter(given.values()), None)


def _arguments(loss: Mapping[str, Any]) -> tuple[str, str]:
    """Name the first two arguments of a loss; those of GML's own losses where it is not known yet."""
    try:
        names = list(inspect.signature(registry.losses.get(loss.get("type")).forward).parameters)[1:]
    except SpecError:
        names = []
    return (names[0], names[1]) if len(names) > 1 else ("s_pred", "t_pred")


def _free(name: str, taken: Mapping[str, Any]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
