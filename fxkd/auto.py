"""``connector: auto``: choose a connector by the shapes of the record it takes and of the value it must fit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fxkd import registry
from fxkd.errors import Problems, SpecError
from fxkd.fakes import Mistake, Stage, Unseen
from fxkd.fitting import fitting
from fxkd.spec import Reference, Spec
from fxkd.spec.check import is_auto
from fxkd.spec.vocabulary import Config
from fxkd.wording import described

Lookup = Callable[[Reference, str], Any]  # gives the part of a record that a reference picks


@dataclass(frozen=True, slots=True)
class Use:
    """An argument of a loss that goes through a connector."""

    loss: str
    argument: str
    reference: Reference

    @property
    def where(self) -> str:
        return f"loss_forward_mappings.{self.loss}.{self.argument}"


def auto_connectors(spec: Spec) -> list[str]:
    """List the connectors of ``spec`` that are still to be chosen.

    >>> pair = {"student": "a", "teacher": "b", "loss": {"type": "L2Loss"}, "student_connector": "auto"}
    >>> auto_connectors(Spec.load({"pairs": [pair]}))
    ['loss_a_student']
    """
    return [name for name, config in spec.connectors.items() if is_auto(config)]


def refuse_unsized(spec: Spec) -> None:
    """Refuse ``auto`` where there is nothing to size it by.

    Raises:
        SpecError: Names every such connector, and says why.
    """
    problems = Problems(dict(spec.lines))
    for name in auto_connectors(spec):
        problems.add(
            f"connectors.{name}",
            "is 'auto', which is sized by the shapes in the models: give prepare example_inputs. (Sized at the first "
            "call, its parameters would be missing from an optimizer that was made before.)",
        )
    problems.raise_if_any()


def sized(spec: Spec, lookup: Lookup, problems: Problems) -> Spec:
    """Give ``spec`` with a concrete config in the place of every ``auto``; what cannot be chosen stays, and is noted.

    Args:
        spec: A spec.
        lookup: Gives the value of a record.
        problems: Where it is noted what cannot be chosen, with both shapes.
    """
    chosen = {name: _chosen(name, spec, lookup, problems) for name in auto_connectors(spec)}
    return replace(spec, connectors={**spec.connectors, **{n: c for n, c in chosen.items() if c is not None}})


def _chosen(name: str, spec: Spec, lookup: Lookup, problems: Problems) -> Config | None:
    """Choose one connector: the same for all who use it."""
    configs: list[tuple[Use, Config]] = []
    for use in _uses(name, spec):
        try:
            configs.append((use, _for_use(use, spec, lookup)))
        except SpecError as error:
            problems.add(use.where, str(error))
            return None
    if not configs:
        problems.add(f"connectors.{name}", "is 'auto', but no argument of a loss goes through it: take it out")
        return None
    (first, config), *others = configs
    for use, other in others:
        if repr(other) != repr(config):
            problems.add(
                f"connectors.{name}",
                f"is 'auto' and used where it would have to be {_written(config)} ({first.where}) and "
                f"{_written(other)} ({use.where}); give each use a connector of its own",
            )
            return None
    return config


def _uses(name: str, spec: Spec) -> Iterator[Use]:
    for loss, mapping in spec.loss_forward_mappings.items():
        for argument, reference in mapping.items():
            if reference.connector == name:
                yield Use(loss, argument, reference)


def _for_use(use: Use, spec: Spec, lookup: Lookup) -> Config:
    """Choose by one argument and its partner of the other model."""
    if use.reference.connector_idx is not None:
        raise SpecError(["connector_idx picks a part of what a connector gives, and 'auto' gives one tensor"])
    if use.reference.recorder is None:
        raise SpecError(["'auto' is for records; write out the connector of an argument of the call"])
    partner = _partner(use, spec)
    value = lookup(use.reference, use.where)
    wanted = _connected(partner, spec, lookup)
    for where, given in ((use.where, value), (partner.where, wanted)):
        if not isinstance(given, Tensor):
            raise SpecError([f"'auto' fits a tensor to a tensor, and {where} is {described(given)}; use data_idx"])
    return fitting(tuple(value.shape), tuple(wanted.shape))


def _partner(use: Use, spec: Spec) -> Use:
    """Find the one argument of the same loss that comes from the other model."""
    mapping = spec.loss_forward_mappings[use.loss]
    others = [
        Use(use.loss, argument, reference)
        for argument, reference in mapping.items()
        if reference.recorder is not None and reference.from_student != use.reference.from_student
    ]
    other_side = "teacher" if use.reference.from_student else "student"
    if len(others) != 1:
        there = ", ".join(repr(other.argument) for other in others) or "none"
        raise SpecError(
            [
                f"'auto' takes its size from the one value of the {other_side} that the loss reads, and there are "
                f"{len(others)} ({there}): write the connector out"
            ]
        )
    connector = others[0].reference.connector
    if connector is not None and is_auto(spec.connectors[connector]):
        raise SpecError([f"both sides are 'auto', so neither has a size to fit; write out {connector!r} or this one"])
    return others[0]


def _connected(use: Use, spec: Spec, lookup: Lookup) -> Any:
    """Give the value of an argument behind its own connector."""
    value, name = lookup(use.reference, use.where), use.reference.connector
    if name is None:
        return value
    stage = Stage()
    try:
        with stage.mode:
            connector = registry.connectors.build(spec.connectors[name])
            if any(hasattr(part, "adapt") for part in connector.modules()):
                return value  # set by what it is put behind, later; such connectors keep the form of what they take
        value = stage.call(connector, stage.fresh(value))
        return value if use.reference.connector_idx is None else value[use.reference.connector_idx]
    except (Mistake, Unseen) as error:
        raise SpecError([f"the connector {name!r} of the partner gives nothing to fit: {error}"]) from error


def _written(config: Any) -> str:
    return str(dict(config)) if isinstance(config, Mapping) else str(config)
