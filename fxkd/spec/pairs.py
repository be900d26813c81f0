"""The pair form: a point of the student, a point of the teacher and a loss, written out as recorders and mappings."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd import registry
from fxkd.errors import Problems, SpecError, did_you_mean, near_names
from fxkd.spec.check import is_auto

KEYS = (
    "student",
    "teacher",
    "loss",
    "losses",
    "head",
    "student_connector",
    "teacher_connector",
    "dim_select",
    "from_teacher",
    "args",
    "name",
)
LOSSES = ("loss", "losses", "head")  # one of them
SELECT = "SelectConnector"
SECTIONS = ("student_recorders", "teacher_recorders", "connectors", "distill_losses", "loss_forward_mappings")


def expand_pairs(source: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Write ``source["pairs"]`` out into the other sections, which may hold entries of their own.

    The first two arguments of the loss are the student's and the teacher's value; ``args`` gives the others. In place
    of ``loss`` there may be ``losses``, a list of several on the same values, or ``head``, one that owns connectors and
    losses. ``dim_select`` takes a part of a dimension of both values, before any connector.
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
    for key in ("student", "teacher"):
        if key not in pair and not near_names(key, unknown):
            problems.add(where, f"needs the key {key!r}")
    losses = _losses(pair, unknown, where, problems)
    if "from_teacher" in pair and not isinstance(pair["from_teacher"], str):
        problems.add(f"{where}.from_teacher", f"is {pair['from_teacher']!r}; give the name of a teacher")
    if "dim_select" in pair:
        _check_selection(pair, where, problems)
    if not isinstance(pair.get("args", {}), Mapping):
        what = type(pair["args"]).__name__
        problems.add(f"{where}.args", f"is a {what}; give a mapping from arguments to references")
    if not isinstance(pair.get("name", ""), str):
        problems.add(f"{where}.name", f"is {pair['name']!r}; give a text")
    arguments = [(_arguments(config, place, problems), config, place) for place, config in losses.items()]
    if len(problems.found) > before:
        return
    label = pair.get("name") or "loss_" + _plain(_path(pair["student"]))
    sides: dict[str, Any] = {}
    for names, config, place in arguments:
        if names is None:
            continue
        name = _free(label, spec["distill_losses"])
        sides = sides or {side: _side(spec, pair, side, name) for side in ("student", "teacher")}
        spec["distill_losses"][name] = config
        mapping = {argument: _as_reference(value) for argument, value in pair.get("args", {}).items()}
        mapping |= dict(zip(names, sides.values(), strict=False))
        spec["loss_forward_mappings"][name] = mapping
        for side, reference in sides.items():
            problems.stands_at(f"{side}_recorders.{reference['recorder']}", f"{where}.{side}")
            problems.stands_at(f"connectors.{name}_{side}", f"{where}.{side}_connector")
        problems.stands_at(f"distill_losses.{name}", place)
        problems.stands_at(f"loss_forward_mappings.{name}", where)


def _losses(pair: Mapping[str, Any], unknown: list[Any], where: str, problems: Problems) -> dict[str, Any]:
    """Give the losses of a pair by the place where each is written."""
    given = [key for key in LOSSES if key in pair]
    if not given and not near_names("loss", unknown):
        problems.add(where, "needs the key 'loss'")
    if len(given) > 1:
        problems.add(where, f"has {' and '.join(map(repr, given))}; give one of them")
    if not given:
        return {}
    value, place = pair[given[0]], f"{where}.{given[0]}"
    if given[0] != "losses":
        return {place: value}
    if not isinstance(value, (list, tuple)) or not value:
        problems.add(place, f"is {value!r}; give a list of losses")
        return {}
    return {f"{place}[{index}]": config for index, config in enumerate(value)}


def _check_selection(pair: Mapping[str, Any], where: str, problems: Problems) -> None:
    given, automatic = pair["dim_select"], [k for k in pair if k.endswith("_connector") and is_auto(pair[k])]
    if not isinstance(given, Mapping):
        problems.add(f"{where}.dim_select", f"is {given!r}; give a mapping such as {{'dim': 1, 'start': 0, 'stop': 8}}")
        return
    if automatic:
        problems.add(f"{where}.{automatic[0]}", "is 'auto', which knows no 'dim_select': write the connector out")
    try:
        registry.connectors.build({"type": SELECT, **given})
    except SpecError as error:
        problems.add(f"{where}.dim_select", str(error))


def _side(spec: dict[str, Any], pair: Mapping[str, Any], side: str, name: str) -> dict[str, Any]:
    """Add the recorder and the connector of one side; give the reference to them."""
    point = pair[side]
    recorder = dict(point) if isinstance(point, Mapping) else {"type": "ModuleOutputs", "source": point}
    if side == "teacher" and "from_teacher" in pair:
        recorder["from_teacher"] = pair["from_teacher"]
    picked = {key: recorder.pop(key) for key in ("record_idx", "data_idx") if key in recorder}
    recorders = spec[f"{side}_recorders"]
    known = next((key for key, value in recorders.items() if value == recorder and isinstance(key, str)), None)
    label = known or _free(_path(point) or "model", recorders)
    recorders[label] = recorder
    reference = {"recorder": label, "from_student": side == "student", **picked}
    connector = _connector(pair, side)
    if connector is not None:
        reference["connector"] = _free(f"{name}_{side}", spec["connectors"])
        spec["connectors"][reference["connector"]] = connector
    return reference


def _connector(pair: Mapping[str, Any], side: str) -> Any:
    """Give the connector of one side, with the selection before it."""
    given = pair.get(f"{side}_connector")
    if "dim_select" not in pair:
        return given
    after = [] if given is None else [*given] if isinstance(given, (list, tuple)) else [given]
    return [{"type": SELECT, **pair["dim_select"]}, *after]


def _arguments(config: Any, where: str, problems: Problems) -> list[str] | None:
    """Name the arguments of the loss's ``forward``, in order."""
    if isinstance(config, nn.Module):
        return list(inspect.signature(config.forward).parameters)
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
