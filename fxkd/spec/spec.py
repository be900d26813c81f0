"""A distillation as one frozen value, read from a mapping or YAML and checked as far as no model is needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from fxkd import registry
from fxkd.errors import Problems, SpecError, did_you_mean
from fxkd.spec.check import check_config, check_mappings
from fxkd.spec.pairs import expand_pairs
from fxkd.spec.vocabulary import (
    Config,
    Delivery,
    Recorder,
    Reference,
    StudentLoss,
    read_delivery,
    read_recorder,
    read_reference,
    read_student_loss,
)

SECTIONS = (
    "student_recorders",
    "teacher_recorders",
    "distill_deliveries",
    "connectors",
    "distill_losses",
    "loss_forward_mappings",
)
OPTIONS = ("inputs", "student_loss", "return_output")
WRAPPER = "ConfigurableDistiller"
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """A distillation, frozen and checked: every name in it means something.

    Args:
        student_recorders: Points of the student whose values losses read, by name.
        teacher_recorders: The same for the teacher.
        distill_deliveries: Points at which the student takes the teacher's values.
        connectors: Modules that make a record fit its partner: a config, a list of them (a chain), or a module.
        distill_losses: Losses by name; those whose name contains ``loss`` are summed and trained.
        loss_forward_mappings: For each loss, where each argument of its ``forward`` comes from.
        inputs: Arguments of a call that are for the losses and not for the models.
        student_loss: ``"auto"`` takes the loss that the student returns, ``False`` leaves it out, a mapping makes one.
        return_output: Whether a call gives what the student returned.

    The vocabulary is MMRazor's (https://mmrazor.readthedocs.io); ``pairs`` is short for a recorder on each side,
    connectors, a loss and its mapping.

    >>> spec = Spec.load({"pairs": [{"student": "layer2", "teacher": "layer2", "loss": {"type": "L2Loss"}}]})
    >>> spec.student_recorders
    {'layer2': Recorder(type='ModuleOutputs', source='layer2')}
    >>> list(spec.distill_losses)
    ['loss_layer2']
    """

    student_recorders: Mapping[str, Recorder] = field(default_factory=dict)
    teacher_recorders: Mapping[str, Recorder] = field(default_factory=dict)
    distill_deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    connectors: Mapping[str, Config] = field(default_factory=dict)
    distill_losses: Mapping[str, Config] = field(default_factory=dict)
    loss_forward_mappings: Mapping[str, Mapping[str, Reference]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    student_loss: StudentLoss | str | bool = "auto"
    return_output: bool = True

    @classmethod
    def load(cls, source: Union["Spec", Mapping[str, Any], str, Path]) -> "Spec":
        """Read a spec from a mapping or from a YAML file; nothing in it is executed.

        Raises:
            SpecError: One report of everything that is wrong, each with its place.
        """
        if isinstance(source, Spec):
            return source
        where = str(source) if isinstance(source, (str, Path)) else "the spec"
        given = _read_yaml(Path(source)) if isinstance(source, (str, Path)) else source
        if not isinstance(given, Mapping):
            raise SpecError([f"{where} is a {type(given).__name__}; a spec is a mapping with {_quoted(SECTIONS)}"])
        problems = Problems()
        spec = _read(expand_pairs(_unwrap(given, problems), problems), problems)
        problems.raise_if_any()
        return spec


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([f"the spec {str(path)!r} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"the spec {str(path)!r} is not text: {error}"]) from None
    except yaml.YAMLError as error:
        raise SpecError([f"the spec {str(path)!r} is not YAML: {error}"]) from None


def _unwrap(given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Take off ``type='ConfigurableDistiller'`` and refuse keys that mean nothing."""
    spec = {key: value for key, value in given.items() if (key, value) != ("type", WRAPPER)}
    known = (*SECTIONS, "pairs", *OPTIONS)
    for key in [key for key in spec if key not in known]:
        problems.add(str(key), f"unknown key; there is {_quoted(known)}.{did_you_mean(str(key), known)}")
        del spec[key]
    return spec


def _read(given: Mapping[str, Any], problems: Problems) -> Spec:
    sections = {name: _section(given, name, problems) for name in SECTIONS}
    recorders = {
        side: _entries(sections[name], name, read_recorder, problems)
        for side, name in ((True, "student_recorders"), (False, "teacher_recorders"))
    }
    for name, family in (("connectors", registry.connectors), ("distill_losses", registry.losses)):
        for key, config in sections[name].items():
            _check_name(key, f"{name}.{key}", problems)
            check_config(config, family, f"{name}.{key}", problems)
    mappings = {
        loss: _entries(
            _mapping(mapping, f"loss_forward_mappings.{loss}", problems),
            f"loss_forward_mappings.{loss}",
            read_reference,
            problems,
        )
        for loss, mapping in sections["loss_forward_mappings"].items()
    }
    losses, connectors = sections["distill_losses"], sections["connectors"]
    check_mappings(mappings, losses, recorders, connectors, problems)
    return Spec(
        student_recorders=recorders[True],
        teacher_recorders=recorders[False],
        distill_deliveries=_entries(sections["distill_deliveries"], "distill_deliveries", read_delivery, problems),
        connectors=connectors,
        distill_losses=losses,
        loss_forward_mappings=mappings,
        inputs=_inputs(given.get("inputs", ()), problems),
        student_loss=_student_loss(given.get("student_loss", "auto"), problems),
        return_output=_flag(given.get("return_output", True), problems),
    )


def _section(given: Mapping[str, Any], name: str, problems: Problems) -> dict[str, Any]:
    return _mapping(given.get(name) or {}, name, problems)


def _mapping(value: Any, where: str, problems: Problems) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    problems.add(where, f"is a {type(value).__name__}; give a mapping from names to entries")
    return {}


def _entries(
    section: Mapping[str, Any], where: str, read: Callable[[Any, str, Problems], Entry | None], problems: Problems
) -> dict[str, Entry]:
    entries = {name: read(value, f"{where}.{name}", problems) for name, value in section.items()}
    return {name: entry for name, entry in entries.items() if entry is not None}


def _check_name(name: Any, where: str, problems: Problems) -> None:
    if not isinstance(name, str) or not name or "." in name:
        problems.add(where, "the name becomes part of a state dict's keys: use a string without dots")


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


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))
