"""The entries of a spec, each a frozen record that reads itself from a mapping and reports what it cannot read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from torch import nn

from fxkd.errors import Problems, SpecError, did_you_mean, near_names
from fxkd.schedule import Schedule, is_schedule
from fxkd.spec.frozen import frozen

Config = Mapping[str, Any] | Sequence[Mapping[str, Any]] | nn.Module
Entry = TypeVar("Entry")

RECORDERS = (
    "ModuleOutputs",
    "ModuleInputs",
    "FunctionOutputs",
    "FunctionInputs",
    "MethodOutputs",
    "MethodInputs",
    "Parameter",
    "ModuleGradients",
)
DELIVERIES = {
    "ModuleOutputs": "source",
    "FunctionOutputs": "func_path",
    "MethodOutputs": "method_path",
    "ModuleInputs": "source",
    "FunctionInputs": "func_path",
    "MethodInputs": "method_path",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorder:
    """A point whose values are kept: ``type`` is the kind of point, ``source`` its path.

    Of ``ModuleGradients`` the record is the gradient of the model's own loss with respect to what the module gave.
    """

    type: str
    source: str

    @property
    def is_of_gradients(self) -> bool:
        """Whether it records a gradient at a point, and not a value."""
        return self.type == "ModuleGradients"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A point at which one model takes the other's values, first in first out, at most ``max_keep_data`` a step.

    The student takes the teacher's, or with ``from_student`` the other way round. ``target`` is the point in the model
    that takes, if it has another path there, and ``data_idx`` the one part of what a call gives that is handed over.
    """

    type: str
    path: str
    max_keep_data: int = 1
    data_idx: int | str | None = None
    from_student: bool = False
    target: str | None = None

    @property
    def is_of_inputs(self) -> bool:
        """Whether what a call takes is handed over, and not what it gives."""
        return self.type.endswith("Inputs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Where an argument of a loss comes from: a record, or (``from_input``) an argument of the call.

    A record is picked by ``record_idx`` (which call of the point), then ``data_idx`` (which part of the value), goes
    through ``connector``, ``connector_idx`` picks a part of what that gives, and with ``detach`` no gradient flows
    back. Of several recorders the connector, or the loss, gets the tuple of what each gives.
    """

    recorder: str | tuple[str, ...] | None = None
    from_student: bool | None = None
    record_idx: int = 0
    data_idx: int | str | None = None
    connector: str | None = None
    connector_idx: int | None = None
    from_input: str | None = None
    detach: bool = False

    @property
    def recorders(self) -> tuple[str, ...]:
        """The names of the recorders: none, one or several."""
        return self.recorder if isinstance(self.recorder, tuple) else (self.recorder,) if self.recorder else ()

    def of_records(self, value_of: Callable[[str], Any]) -> Any:
        """Give the value of the recorder, or of several the tuple of theirs."""
        values = tuple(map(value_of, self.recorders))
        return values if isinstance(self.recorder, tuple) else values[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentLoss:
    """The student's own loss where the model returns none: a module of ``scope`` called with named arguments.

    ``args`` maps each argument to ``"from_output"`` (what the student returned) or ``{"from_input": name}``; every
    other key of the spec's mapping is an ``option`` of the module. ``weight`` is a number or a schedule.
    """

    type: str
    args: Mapping[str, Any]
    scope: str = "torch.nn"
    weight: Any = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep copies that nobody can change."""
        object.__setattr__(self, "args", frozen(self.args))
        object.__setattr__(self, "options", frozen(self.options))


def read_entry(kind: type[Entry], given: Any, where: str, problems: Problems) -> Entry | None:
    """Read one entry; note unknown keys (with near ones), missing keys and values of the wrong type."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        problems.add(where, f"is {given!r}; give a mapping with the keys {_names(kind)}")
        return None
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = [key for key in given if key not in known]
    for key in unknown:
        problems.add(f"{where}.{key}", f"unknown key; there is {_names(kind)}." + did_you_mean(str(key), known))
    missing = [name for name, field in known.items() if field.default is MISSING and name not in given]
    for name in missing:
        if not near_names(name, unknown):
            problems.add(where, f"needs the key {name!r}")
    if unknown or missing:
        return None
    types = get_type_hints(kind)
    wrong = [name for name, value in given.items() if not fits(value, types[name])]
    for name in wrong:
        problems.add(f"{where}.{name}", f"is {given[name]!r}; it must be {described_type(types[name])}")
    return None if wrong else kind(**given)


def _names(kind: type) -> str:
    return ", ".join(repr(field.name) for field in fields(kind))


def fits(value: Any, annotation: Any) -> bool:
    """Tell whether ``value`` is of one of the plain types of ``annotation``; True and False are no numbers."""
    kinds = [get_origin(kind) or kind for kind in get_args(annotation) or (annotation,)]
    if get_origin(annotation) is Mapping or annotation is Any:
        kinds = [get_origin(annotation) or object]
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    return isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))


def described_type(annotation: Any) -> str:
    """Say in words what a value may be."""
    kinds = get_args(annotation) if get_origin(annotation) is not Mapping else ()
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "nothing"}
    names[tuple] = "a list of texts"
    return " or ".join(names.get(get_origin(kind) or kind, "a mapping") for kind in kinds or (annotation,))


def read_recorder(given: Any, where: str, problems: Problems) -> Recorder | None:
    """Read a recorder; its type must be one of the seven kinds of points.

    ``from_teacher`` is short for a source that begins with the name of that teacher.
    """
    if isinstance(given, Mapping) and isinstance(given.get("from_teacher"), str):
        given = dict(given)
        given["source"] = ".".join(filter(None, (given.pop("from_teacher"), given.get("source"))))
    recorder = read_entry(Recorder, given, where, problems)
    if recorder is not None and recorder.type not in RECORDERS:
        problems.add(f"{where}.type", _unknown_type(recorder.type, "recorder", RECORDERS))
        return None
    return recorder


def read_delivery(given: Any, where: str, problems: Problems) -> Delivery | None:
    """Read a delivery; the key of its path depends on its type, as in MMRazor."""
    if not isinstance(given, Mapping) or given.get("type") not in list(DELIVERIES):
        given_type = given.get("type") if isinstance(given, Mapping) else given
        problems.add(f"{where}.type", _unknown_type(str(given_type), "delivery", list(DELIVERIES)))
        return None
    key = DELIVERIES[given["type"]]
    renamed = {"path" if name == key else name: value for name, value in given.items()}
    if "path" in given or "path" not in renamed:
        problems.add(where, f"a delivery of type {given['type']!r} needs the key {key!r}")
        return None
    delivery = read_entry(Delivery, renamed, where, problems)
    if delivery is not None and delivery.max_keep_data < 1:
        problems.add(f"{where}.max_keep_data", f"is {delivery.max_keep_data}; at least one value must be kept")
        return None
    if delivery is not None and delivery.is_of_inputs and delivery.data_idx is not None:
        what = "picks a part of what a call gives; the inputs of a call are handed over all together"
        problems.add(f"{where}.data_idx", what)
        return None
    return delivery


def read_reference(given: Any, where: str, problems: Problems) -> Reference | None:
    """Read where an argument comes from; ``from_recorder`` is understood as ``recorder``."""
    if isinstance(given, Mapping) and "from_recorder" in given and "recorder" not in given:
        given = {("recorder" if key == "from_recorder" else key): value for key, value in given.items()}
    if isinstance(given, Mapping) and isinstance(given.get("recorder"), list):
        given = {**given, "recorder": tuple(given["recorder"])}
    reference = read_entry(Reference, given, where, problems)
    if reference is None:
        return None
    if reference.recorder == () or not all(isinstance(name, str) for name in reference.recorders):
        problems.add(f"{where}.recorder", f"is {given['recorder']!r}; give the name of a recorder, or a list of names")
        return None
    if (reference.recorder is None) == (reference.from_input is None):
        problems.add(where, "needs either 'recorder' (with 'from_student') or 'from_input'")
        return None
    if reference.recorder is not None and reference.from_student is None:
        problems.add(where, "needs the key 'from_student' (true or false): whose recorder is meant")
        return None
    return reference


def read_student_loss(given: Any, where: str, problems: Problems) -> StudentLoss | None:
    """Read a student loss; keys that are not its own are options of the module."""
    if not isinstance(given, Mapping):
        problems.add(where, f"is {given!r}; give 'auto', false, or a mapping with 'type' and 'args'")
        return None
    own = {key: value for key, value in given.items() if key in ("type", "args", "scope", "weight")}
    options = {key: value for key, value in given.items() if key not in own}
    loss = read_entry(StudentLoss, own | {"options": options}, where, problems)
    if loss is not None and not _is_weight(loss.weight, where, problems):
        return None
    for name, value in loss.args.items() if loss is not None else ():
        is_input = isinstance(value, Mapping) and list(value) == ["from_input"]
        if value != "from_output" and not is_input:
            problems.add(f"{where}.args.{name}", f"is {value!r}; give 'from_output' or {{'from_input': name}}")
    return loss


def _is_weight(weight: Any, where: str, problems: Problems) -> bool:
    try:
        if is_schedule(weight):
            Schedule.read(weight)
        elif not fits(weight, float):
            problems.add(f"{where}.weight", f"is {weight!r}; it must be a number")
            return False
    except SpecError as error:
        problems.add(f"{where}.weight", str(error))
        return False
    return True


def _unknown_type(given: str, what: str, known: Sequence[str]) -> str:
    return f"no {what} is of type {given!r}; there is {', '.join(map(repr, known))}." + did_you_mean(given, known)
