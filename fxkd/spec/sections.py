"""The keys of a spec, each read as far as it can be."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fxkd.errors import Problems, near_names, offer
from fxkd.spec import algorithm
from fxkd.spec.vocabulary import StudentLoss, read_delivery, read_recorder, read_reference, read_student_loss

SECTIONS = (
    "student_recorders",
    "teacher_recorders",
    "distill_deliveries",
    "connectors",
    "distill_losses",
    "loss_forward_mappings",
)
OPTIONS = ("inputs", "student_loss", "return_output", *algorithm.OPTIONS)
WRAPPER = "ConfigurableDistiller"
Entry = TypeVar("Entry")


def unwrap(given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Take off ``type='ConfigurableDistiller'`` and refuse keys that mean nothing.

    What stands under a misspelt key is read as what was meant, so that nothing is reported as missing besides.
    """
    spec = {key: value for key, value in given.items() if (key, value) != ("type", WRAPPER)}
    known = (*SECTIONS, "pairs", *OPTIONS)
    for key in [key for key in spec if key not in known]:
        near = near_names(key, known)
        problems.add(str(key), f"unknown key; there is {', '.join(map(repr, known))}." + offer(near))
        value = spec.pop(key)
        if near and near[0] not in given:
            spec[near[0]] = value
    return spec


def read_fields(given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Read the sections and options of a spec."""
    sections = {name: _mapping(given.get(name) or {}, name, problems) for name in SECTIONS}
    readers = {
        "student_recorders": read_recorder,
        "teacher_recorders": read_recorder,
        "distill_deliveries": read_delivery,
        "loss_forward_mappings": _read_mapping,
    }
    entries = {
        name: _entries(section, name, readers.get(name, _as_it_is), problems) for name, section in sections.items()
    }
    return entries | {
        "inputs": _inputs(given.get("inputs", ()), problems),
        "student_loss": _student_loss(given.get("student_loss", "auto"), problems),
        "return_output": _flag(given.get("return_output", True), problems),
        **algorithm.read_algorithm(given, problems),
    }


def _mapping(value: Any, where: str, problems: Problems) -> dict[Any, Any]:
    """Give a section by name; a list, as MMRazor's documents have it, names its entries by position."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)) and all(isinstance(entry, Mapping) for entry in value):
        return {str(index): entry for index, entry in enumerate(value)}
    problems.add(where, f"is a {type(value).__name__}; give a mapping from names to entries")
    return {}


def _entries(
    section: Mapping[Any, Any], where: str, read: Callable[[Any, str, Problems], Entry | None], problems: Problems
) -> dict[str, Entry]:
    entries = {}
    for name, value in section.items():
        if not isinstance(name, str) or not name:  # YAML gives other keys than texts
            problems.add(f"{where}.{name}", f"the name is {name!r}; a name is a text (in YAML, put it in quotes)")
            continue
        entry = read(value, f"{where}.{name}", problems)
        if entry is not None:
            entries[name] = entry
    return entries


def _as_it_is(value: Any, where: str, problems: Problems) -> Any:
    if value is None:
        problems.add(where, "is nothing; give a mapping with the key 'type'")
    return value


def _read_mapping(value: Any, where: str, problems: Problems) -> dict[str, Any]:
    return _entries(_mapping(value, where, problems), where, read_reference, problems)


def _inputs(value: Any, problems: Problems) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        problems.add("inputs", f"is {value!r}; give a list of argument names")
        return ()
    return tuple(value)


def _flag(value: Any, problems: Problems) -> bool:
    if not isinstance(value, bool):
        problems.add("return_output", f"is {value!r}; give true or false")
    return bool(value)


def _student_loss(value: Any, problems: Problems) -> StudentLoss | str | bool:
    if value == "auto" or value is False:
        return value  # type: ignore[no-any-return]
    return read_student_loss(value, "student_loss", problems) or "auto"
