"""Where a recipe reads a value: a point as a spec writes it, and the value that one run had there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fxkd.errors import PointError, SpecError
from fxkd.points import find_module
from fxkd.recipes._seen import Call, Seen
from fxkd.records import pick
from fxkd.spec.vocabulary import RECORDERS

KEYS = ("type", "source", "record_idx", "data_idx")


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of one model.

    Args:
        point: What stands for it in a pair: the keys of a recorder, with ``record_idx`` and ``data_idx`` where needed.
        value: What the run gave there; None where that is not known.
    """

    point: Mapping[str, Any]
    value: Any = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value, or nothing."""
        return tuple(map(int, self.value.shape)) if isinstance(self.value, Tensor) else ()

    @property
    def name(self) -> str:
        """The path as part of a name."""
        part = f"_{self.point['data_idx']}" if "data_idx" in self.point else ""
        return (self.point["source"].replace(".", "_") or "output") + part

    @property
    def recorder(self) -> dict[str, Any]:
        """What records it."""
        return {key: value for key, value in self.point.items() if key in ("type", "source")}

    def reference(self, recorder: str, from_student: bool, **more: Any) -> dict[str, Any]:
        """Give what a loss reads it by, if it is recorded under that name."""
        picked = {key: value for key, value in self.point.items() if key in ("record_idx", "data_idx")}
        return {"recorder": recorder, "from_student": from_student, **picked, **more}


def spot_of(call: Call, seen: Seen) -> Spot:
    """Give the point of what a call gave."""
    point: dict[str, Any] = {"type": "ModuleOutputs", "source": _prefixed(call.path, seen)}
    return Spot(point | ({"record_idx": call.index} if call.index else {}), call.value)


def spot_of_input(call: Call, seen: Seen, position: int) -> Spot:
    """Give the point of an argument that a call took."""
    point: dict[str, Any] = {"type": "ModuleInputs", "source": _prefixed(call.path, seen)}
    picked = ({"record_idx": call.index} if call.index else {}) | {"data_idx": position}
    return Spot(point | picked, call.args[position])


def given_spot(given: Any, where: str, seen: Seen) -> Spot:
    """Read a point that the user names: a path of a module, or a mapping as in a pair.

    Raises:
        SpecError: It is neither, or the model has no such module, or none that is called so often.
    """
    point = {"type": "ModuleOutputs", "source": given} if isinstance(given, str) else given
    if not isinstance(point, Mapping) or not isinstance(point.get("source"), str):
        example = "{'type': 'ModuleInputs', 'source': 'fc', 'data_idx': 0}"
        raise SpecError([f"{where}: is {given!r}; give a path such as 'layer3', or a mapping such as {example}"])
    kind, path = point.get("type", "ModuleOutputs"), point["source"]
    strange = [key for key in point if key not in KEYS]
    if strange or kind not in RECORDERS:
        what = f"has the key {strange[0]!r}" if strange else f"is of type {kind!r}"
        raise SpecError([f"{where}: {what}; a point has {', '.join(map(repr, KEYS))}, and is one of {list(RECORDERS)}"])
    written = {"type": kind, **point}
    if not kind.startswith("Module"):
        return Spot(written)
    return Spot(written | {"source": _prefixed(path, seen)}, _value(written, where, seen))


def _value(point: Mapping[str, Any], where: str, seen: Seen) -> Any:
    path, index = point["source"], point.get("record_idx", 0)
    try:
        find_module(seen.model, path)
    except PointError as error:
        raise SpecError([f"{where}: {error}"]) from error
    call = seen.find(path, index)
    if call is None:
        raise SpecError([f"{where}: {path!r} of the {seen.side} has no call number {index} on example_inputs"])
    value = call.value if point["type"] == "ModuleOutputs" else call.args
    try:
        return pick(value, point["data_idx"], where) if "data_idx" in point else value
    except PointError as error:
        raise SpecError([str(error)]) from error


def _prefixed(path: str, seen: Seen) -> str:
    return ".".join(filter(None, (seen.prefix, path)))
