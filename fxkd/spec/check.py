"""Checks that need no model: every name that is used is defined, every loss gets the arguments it needs."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from fxkd import registry
from fxkd.errors import Problems, SpecError, did_you_mean, near_names, offer
from fxkd.registry import Registry
from fxkd.schedule import first_values
from fxkd.spec.vocabulary import Config, Reference, StudentLoss

if TYPE_CHECKING:
    from fxkd.spec.spec import Spec

SCOPES = ("torch.nn", "fxkd")
HELD_IN = nn.ModuleDict()  # connectors and losses become parts of one
Takes = Mapping[str, inspect.Parameter]


def is_auto(config: object) -> bool:
    """Tell whether a connector is to be chosen by the shapes that it must fit."""
    return config == "auto" if isinstance(config, str) else isinstance(config, Mapping) and config.get("type") == "auto"


def check_spec(spec: "Spec", problems: Problems) -> None:
    """Check what a spec says by itself; what could not be read is not reported a second time."""
    for section, family in (("connectors", registry.connectors), ("distill_losses", registry.losses)):
        for name, config in getattr(spec, section).items():
            _check_name(name, f"{section}.{name}", problems)
            if section == "connectors" and is_auto(config):
                _check_auto(config, f"{section}.{name}", problems)
            else:
                check_config(config, family, f"{section}.{name}", problems)
    _check_losses(spec, problems)
    if len({delivery.from_student for delivery in spec.distill_deliveries.values()}) == 2:
        what = "some go to the student and some to the teacher, so that neither model could run first"
        problems.add("distill_deliveries", what)
    for loss, mapping in spec.loss_forward_mappings.items():
        for argument, reference in mapping.items():
            _check_reference(reference, f"loss_forward_mappings.{loss}.{argument}", spec, problems)
    if isinstance(spec.student_loss, StudentLoss):
        _check_student_loss(spec.student_loss, problems)


def check_config(config: Config, family: Registry, where: str, problems: Problems) -> None:
    """Check a loss or connector: a type that exists, arguments that it takes."""
    if isinstance(config, nn.Module):
        return
    if isinstance(config, (list, tuple)):
        for index, part in enumerate(config):
            check_config(part, family, f"{where}[{index}]", problems)
        return
    try:
        family.check(first_values(config)[0] if isinstance(config, Mapping) else config)
    except SpecError as error:
        problems.add(where, str(error))


def _check_auto(config: Config, where: str, problems: Problems) -> None:
    options = [key for key in config if key != "type"] if isinstance(config, Mapping) else []
    if options:
        problems.add(where, f"'auto' takes no arguments, and {', '.join(map(repr, options))} is given")


def _check_name(name: str, where: str, problems: Problems) -> None:
    if "." in name:
        problems.add(where, "the name becomes part of a state dict's keys: use a string without dots")
    elif hasattr(HELD_IN, name):
        problems.add(where, f"{name!r} is what torch calls a part of every container of modules: use another name")


def _check_losses(spec: "Spec", problems: Problems) -> None:
    """Check that each loss has its mapping and each mapping its loss."""
    losses, mappings = spec.distill_losses, spec.loss_forward_mappings
    strange = [name for name in mappings if name not in losses and not problems.at(f"distill_losses.{name}")]
    for name in strange:
        hint = did_you_mean(name, losses)
        problems.add(f"loss_forward_mappings.{name}", f"no loss of that name in distill_losses.{hint}")
    for name, config in losses.items():
        if name in mappings:
            _check_arguments(config, mappings[name], f"loss_forward_mappings.{name}", problems)
        elif not near_names(name, strange) and not problems.at(f"loss_forward_mappings.{name}"):
            problems.add(f"distill_losses.{name}", "has no entry in loss_forward_mappings, so it is never computed")


def _check_arguments(config: Config, mapping: Mapping[str, Any], where: str, problems: Problems) -> None:
    takes = _takes(config)
    if takes is None or where in problems.places:
        return
    strange = [argument for argument in mapping if argument not in takes]
    for argument in strange:
        has = ", ".join(map(repr, takes))
        problems.add(f"{where}.{argument}", f"the loss takes {has}.{did_you_mean(argument, takes)}")
    for argument in _needed(takes):
        if not (argument in mapping or near_names(argument, strange) or problems.at(f"{where}.{argument}")):
            problems.add(where, f"the argument {argument!r} of the loss is not mapped")


def _needed(takes: Takes) -> Iterable[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, one in takes.items() if one.default is one.empty and one.kind not in variadic]


def _takes(config: Config) -> Takes | None:
    """Give the named arguments of a loss's ``forward``; nothing where it takes any name, or where there is no loss."""
    if isinstance(config, nn.Module):
        return _named(config.forward)
    if not isinstance(config, Mapping):
        return None
    try:
        cls = registry.losses.get(config.get("type"))
    except SpecError:
        return None
    return _named(cls.forward, skip=1)


def _named(forward: Callable[..., Any], skip: int = 0) -> Takes | None:
    parameters = dict(list(inspect.signature(forward).parameters.items())[skip:])
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return None if takes_any else parameters


def _check_reference(reference: Reference, where: str, spec: "Spec", problems: Problems) -> None:
    if reference.recorder is not None:
        section, other = "student_recorders", "teacher_recorders"
        if not reference.from_student:
            section, other = other, section
        for name in reference.recorders:
            known, elsewhere = getattr(spec, section), getattr(spec, other)
            _check_used(name, section, known, f"{where}.recorder", problems, elsewhere, other)
    if reference.connector is not None:
        _check_used(reference.connector, "connectors", spec.connectors, f"{where}.connector", problems)


def _check_used(
    name: str,
    section: str,
    known: Mapping[str, Any],
    where: str,
    problems: Problems,
    elsewhere: Mapping[str, Any] | None = None,
    other: str = "",
) -> None:
    """Check that ``name`` is in ``section``, or was there and could not be read."""
    if name in known or problems.at(f"{section}.{name}") or section in problems.places:
        return
    there = ", ".join(map(repr, known)) or "nothing"
    hint = did_you_mean(name, known)
    if elsewhere and name in elsewhere:
        hint = f" {name!r} is in {other}: set 'from_student' to {str(other.startswith('student')).lower()}."
    problems.add(where, f"{name!r} is not in {section}, which has {there}.{hint}")


def student_loss_class(given: StudentLoss) -> type[nn.Module]:
    """Find the class of a student loss: one of torch.nn, or one that is registered.

    Raises:
        SpecError: There is none.
    """
    if given.scope not in SCOPES:
        has = " and ".join(map(repr, SCOPES))
        raise SpecError([f"student_loss.scope: is {given.scope!r}; there is {has} (what fxkd.loss registered)"])
    if given.scope == "fxkd":
        try:
            return registry.losses.get(given.type)
        except SpecError as error:
            raise SpecError([f"student_loss.type: {error}"]) from None
    cls = getattr(nn, given.type, None)
    if isinstance(cls, type) and issubclass(cls, nn.Module):
        return cls
    near = near_names(given.type, [name for name in dir(nn) if name.endswith("Loss")])
    raise SpecError([f"student_loss.type: torch.nn has no loss {given.type!r}." + offer(near)])


def _check_student_loss(given: StudentLoss, problems: Problems) -> None:
    try:
        cls = student_loss_class(given)
        inspect.signature(cls).bind(**given.options)
    except SpecError as error:
        where, _, what = str(error).partition(": ")
        problems.add(where, what)
        return
    except TypeError as error:
        problems.add("student_loss", f"{given.type}: {error}; it takes {inspect.signature(cls)}")
        return
    takes = _named(cls.forward, skip=1)
    if takes is None:
        return
    for argument in given.args:
        if argument not in takes:
            has = ", ".join(map(repr, takes))
            problems.add(f"student_loss.args.{argument}", f"the loss takes {has}.{did_you_mean(argument, takes)}")
    for argument in _needed(takes):
        if argument not in given.args and not problems.at("student_loss.args"):
            problems.add("student_loss.args", f"the argument {argument!r} of the loss is not given")
