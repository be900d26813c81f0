"""Configs of MMRazor before 1.0 (``GeneralDistill`` with ``components``) -> pairs."""

from collections.abc import Mapping
from typing import Any

from fxkd.configs.located import Unknown
from fxkd.configs.reading import SCOPE, Reading, checkpoint, model_name, plain_type
from fxkd.configs.spellings import cross_entropy, is_cross_entropy

DISTILLERS = ("SingleTeacherDistiller",)
OF_ALGORITHM = ("type", SCOPE, "architecture", "distiller", "with_student_loss", "with_teacher_loss")
OF_DISTILLER = ("type", SCOPE, "teacher", "teacher_trainable", "teacher_norm_eval", "components")
OF_COMPONENT = ("student_module", "teacher_module", "losses", "align_module")
LABELS = {"WSLD": "gt_labels", "DKDLoss": "gt_labels"}
CONV = {"conv_cfg": {"type": "Conv2d"}, "norm_cfg": None, "act_cfg": None}


def is_old(given: Any) -> bool:
    """Tell whether ``given`` is an algorithm of MMRazor 0.x."""
    distiller = given.get("distiller") if isinstance(given, Mapping) else None
    return plain_type(given) == "GeneralDistill" or (isinstance(distiller, Mapping) and "components" in distiller)


def read_old(given: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Any]:
    """Read an algorithm of MMRazor 0.x: each loss of each component is a pair.

    >>> from fxkd.errors import Problems
    >>> loss = {"type": "KLDivergence", "name": "loss_kl", "tau": 4}
    >>> component = {"student_module": "head.fc", "teacher_module": "head.fc", "losses": [loss]}
    >>> distiller = {"type": "SingleTeacherDistiller", "components": [component]}
    >>> given = {"type": "GeneralDistill", "distiller": distiller}
    >>> read_old(given, "algorithm", Reading(Problems(), Problems()))["pairs"]
    [{'student': 'head.fc', 'teacher': 'head.fc', 'loss': {'type': 'KLDivergence', 'tau': 4}, 'name': 'loss_kl'}]
    """
    reading.notes.add(where, "is a config of MMRazor before 1.0: its components are written as pairs")
    reading.strange(given, OF_ALGORITHM, "GeneralDistill", where)
    if "architecture" in given:
        named = model_name(given["architecture"])
        reading.notes.add(f"{where}.architecture", f"left out: give the student{named} to fxkd.prepare as a module")
    inner = f"{where}.distiller".lstrip(".")
    distiller = given.get("distiller")
    if isinstance(distiller, Unknown):
        reading.known(distiller, inner)
        return {}
    if not isinstance(distiller, Mapping):
        reading.problems.add(inner, "is not there; the components are in it")
        return {}
    spec = _distiller(distiller, inner, reading)
    if not reading.flag(given, "with_student_loss", True, where):
        spec["student_loss"] = False
    if reading.flag(given, "with_teacher_loss", False, where):
        spec["teacher_trainable"] = True
    return spec


def _distiller(given: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Any]:
    given = {key: one if key == "teacher" else reading.known(one, f"{where}.{key}") for key, one in given.items()}
    reading.one_of(plain_type(given) or DISTILLERS[0], DISTILLERS, "distiller of MMRazor 0.x that fxkd reads", where)
    reading.strange(given, OF_DISTILLER, "SingleTeacherDistiller", where)
    if "teacher" in given:
        told = f"left out: give the teacher{model_name(given['teacher'])} to fxkd.prepare as a module"
        reading.notes.add(f"{where}.teacher", told)
    norm_eval = reading.flag(given, "teacher_norm_eval", True, where)
    spec: dict[str, Any] = {"teacher_mode": "norm_eval" if norm_eval else "train"}
    if checkpoint(given.get("teacher")):
        spec["teacher_ckpt"] = checkpoint(given["teacher"])
    if reading.flag(given, "teacher_trainable", False, where):
        spec["teacher_trainable"] = True
    spec["pairs"] = []
    components = given.get("components")
    for index, component in enumerate(components if isinstance(components, list) else []):
        _component(component, f"{where}.components[{index}]", spec, reading)
    return spec


def _component(given: Any, where: str, spec: dict[str, Any], reading: Reading) -> None:
    if not isinstance(given, Mapping) or not isinstance(given.get("losses"), list):
        reading.problems.add(where, "needs 'student_module', 'teacher_module' and a list 'losses'")
        return
    reading.strange(given, OF_COMPONENT, "a component", where)
    for index, loss in enumerate(given["losses"]):
        at = f"{where}.losses[{index}]"
        if not isinstance(loss, Mapping):
            reading.problems.add(at, f"is {loss!r}; give a mapping with the key 'type'")
            continue
        config = {key: value for key, value in loss.items() if key not in ("name", SCOPE)}
        if is_cross_entropy(config):
            config = cross_entropy(config, str(loss.get("name", "")), reading)
        elif plain_type(loss):
            config["type"] = plain_type(loss)
        pair = {"student": given.get("student_module"), "teacher": given.get("teacher_module"), "loss": config}
        pair |= {"name": loss["name"]} if "name" in loss else {}
        pair |= _aligned(given.get("align_module"), f"{where}.align_module", reading)
        pair |= _labels(plain_type(loss), at, spec, reading)
        place = f"pairs[{len(spec['pairs'])}]"
        reading.move(where, place)
        reading.move(f"{where}.student_module", f"{place}.student")
        reading.move(f"{where}.teacher_module", f"{place}.teacher")
        reading.move(at, f"{place}.loss")
        spec["pairs"].append(pair)


def _aligned(given: Any, where: str, reading: Reading) -> dict[str, Any]:
    """Write the layer that fits the student's channels to the teacher's as a connector."""
    if given is None:
        return {}
    channels = [given.get(f"{side}_channels") for side in ("student", "teacher")] if isinstance(given, Mapping) else []
    if plain_type(given) == "conv2d" and all(isinstance(number, int) for number in channels):
        config = {"type": "ConvModuleConnector", "in_channel": channels[0], "out_channel": channels[1]}
        return {"student_connector": config | CONV}
    if plain_type(given) == "linear" and all(isinstance(number, int) for number in channels):
        return {"student_connector": {"type": "LinearConnector", "in_channel": channels[0], "out_channel": channels[1]}}
    told = "is written as a connector where it is of type 'conv2d' or 'linear', with both numbers of channels"
    reading.problems.add(where, f"{told}; write a 'student_connector' instead")
    return {}


def _labels(kind: str, where: str, spec: dict[str, Any], reading: Reading) -> dict[str, Any]:
    if kind not in LABELS:
        return {}
    spec["inputs"] = ["labels"]
    reading.notes.add(where, f"{kind} needs the labels: call the distiller with labels=...")
    return {"args": {LABELS[kind]: {"from_input": "labels"}}}
