"""The pair form: a point of the student, a point of the teacher and a loss, written out as recorders and mappings."""

import inspect
from collections.abc import Mapping
from typing import Any

from fxkd import registry
from fxkd.errors import Problems, SpecError, did_you_mean, near_names

KEYS = ("student", "teacher", "loss", "student_connector", "teacher_connector", "args", "name")
SECTIONS = ("student_recorders", "teacher_recorders", "connectors", "distill_losses", "loss_forward_mappings")


def expand_pairs(source: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Write ``source["pairs"]`` out into the other sections, which may hold entries of their own.

    The first two arguments of the loss are the student's and the teacher's value; ``args`` gives the others.
    """
    spec = {key: value for key, value in source.items() if key != "pairs"}
    pairs = source.get("pairs", [])
    if not isinstance(pairs, list):
        problems.add("pairs", f"is a {type(pairs).__name__}; give a list of pairs")
        return spec
    given = {section: {} if spec.get(section) is None else spec[section] for section in SECTIONS}
    if not all(isinstance(section, Mapping) for section in given.values()):
        return spec  # said where the sections are read
    for name, section in given.items() if pairs else ():
        spec[name] = dict(section)
    for index, pair in enumerate(pairs):
        _expand(spec, pair, f"pairs[{index}]", problems)
    return spec


def _expand(spec: dict[str, Any], pair: Any, where: str, problems: Problems) -> None:
    before = len(problems.found)
    if not isinstance(pair, Mapping):
        problems.add(where, f"is {pair!r}; give a mapping with the keys {', '.join(map(repr, KEYS))}")
        return
    unknown = [key for key in pair if key not in KEYS]
    for key in unknown:
        there = ", ".join(map(repr, KEYS))
        problems.add(f"{where}.{key}", f"unknown key; there is {there}." + did_you_mean(str(key), KEYS))
    for key in ("student", "teacher", "loss"):
        if key not in pair and not near_names(key, unknown):
            problems.add(where, f"needs the key {key!r}")
    if not isinstance(pair.get("args", {}), Mapping):
        what = type(pair["args"]).__name__
        problems.add(f"{where}.args", f"is a {what}; give a mapping from arguments to references")
    if not isinstance(pair.get("name", ""), str):
        problems.add(f"{where}.name", f"is {pair['name']!r}; give a text")
    arguments = _arguments(pair.get("loss"), f"{where}.loss", problems)
    if len(problems.found) > before or arguments is None:
        return
    name = _free(pair.get("name") or "loss_" + _plain(_path(pair["student"])), spec["distill_losses"])
    spec["distill_losses"][name] = pair["loss"]
    mapping = {argument: _as_reference(value) for argument, value in pair.get("args", {}).items()}
    for side, argument in zip(("student", "teacher"), arguments, strict=False):
        mapping[argument] = _side(spec, pair, side, name)
        problems.stands_at(f"{side}_recorders.{mapping[argument]['recorder']}", f"{where}.{side}")
        problems.stands_at(f"connectors.{name}_{side}", f"{where}.{side}_connector")
    spec["loss_forward_mappings"][name] = mapping
    problems.stands_at(f"distill_losses.{name}", f"{where}.loss")
    problems.stands_at(f"loss_forward_mappings.{name}", where)


def _side(spec: dict[str, Any], pair: Mapping[str, Any], side: str, name: str) -> dict[str, Any]:
    """Add the recorder and the connector of one side; give the reference to them."""
    point = pair[side]
    recorder = dict(point) if isinstance(point, Mapping) else {"type": "ModuleOutputs", "source": point}
    picked = {key: recorder.pop(key) for key in ("record_idx", "data_idx") if key in recorder}
    recorders = spec[f"{side}_recorders"]
    known = next((key for key, value in recorders.items() if value == recorder and isinstance(key, str)), None)
    label = known or _free(_path(point) or "model", recorders)
    recorders[label] = recorder
    reference = {"recorder": label, "from_student": side == "student", **picked}
    if pair.get(f"{side}_connector") is not None:
        reference["connector"] = _free(f"{name}_{side}", spec["connectors"])
        spec["connectors"][reference["connector"]] = pair[f"{side}_connector"]
    return reference


def _arguments(config: Any, where: str, problems: Problems) -> list[str] | None:
    """Name the arguments of the loss's ``forward``, in order."""
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        if config is not None:
            problems.add(where, f"is {config!r}; give a mapping with the key 'type'")
        return None
    try:
        cls = registry.losses.get(config["type"])
    except SpecError as error:
        problems.add(f"{where}.type", str(error))
        return None
    return list(inspect.signature(cls.forward).parameters)[1:]


def _as_reference(value: Any) -> Any:
    return {"from_input": value.removeprefix("from_input:").strip()} if isinstance(value, str) else value


def _path(point: Any) -> str:
    return str(point.get("source", "")) if isinstance(point, Mapping) else str(point)


def _plain(path: str) -> str:
    return path.replace(".", "_") or "model"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
