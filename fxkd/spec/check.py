"""Checks that need no model: every name that is used is defined, every loss gets the arguments it needs."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd import registry
from fxkd.errors import Problems, SpecError, did_you_mean
from fxkd.registry import Registry
from fxkd.spec.vocabulary import Config, Recorder, Reference


def check_config(config: Config, family: Registry, where: str, problems: Problems) -> bool:
    """Check a loss or connector: a type that exists, arguments that it takes."""
    if isinstance(config, nn.Module):
        return True
    if isinstance(config, (list, tuple)):
        fine = [check_config(part, family, f"{where}[{index}]", problems) for index, part in enumerate(config)]
        return all(fine)
    try:
        family.check(config)
    except SpecError as error:
        problems.add(where, str(error))
        return False
    return True


def check_mappings(
    mappings: Mapping[str, Mapping[str, Reference]],
    losses: Mapping[str, Config],
    recorders: Mapping[bool, Mapping[str, Recorder]],
    connectors: Mapping[str, Config],
    problems: Problems,
) -> None:
    """Check that each loss has its arguments, and each argument a recorder and a connector that exist."""
    for name in losses:
        if name not in mappings:
            problems.add(f"distill_losses.{name}", "has no entry in loss_forward_mappings, so it is never computed")
    for name, mapping in mappings.items():
        where = f"loss_forward_mappings.{name}"
        if name not in losses:
            problems.add(where, f"no loss of that name in distill_losses.{did_you_mean(name, losses)}")
            continue
        _check_arguments(losses[name], mapping, where, problems)
        for argument, reference in mapping.items():
            _check_reference(reference, f"{where}.{argument}", recorders, connectors, problems)


def _check_arguments(config: Config, mapping: Mapping[str, Any], where: str, problems: Problems) -> None:
    forward = _forward(config)
    if forward is None:
        return
    parameters = dict(list(inspect.signature(forward).parameters.items())[0 if isinstance(config, nn.Module) else 1 :])
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for argument in mapping:
        if argument not in parameters:
            takes = ", ".join(map(repr, parameters))
            problems.add(f"{where}.{argument}", f"the loss takes {takes}.{did_you_mean(argument, parameters)}")
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in mapping:
            problems.add(where, f"the argument {argument!r} of the loss is not mapped")


def _forward(config: Config) -> Any:
    if isinstance(config, nn.Module):
        return config.forward
    known = isinstance(config, Mapping) and config.get("type") in registry.losses.names()
    return registry.losses.get(config["type"]).forward if known else None  # type: ignore[call-overload]


def _check_reference(
    reference: Reference,
    where: str,
    recorders: Mapping[bool, Mapping[str, Recorder]],
    connectors: Mapping[str, Config],
    problems: Problems,
) -> None:
    if reference.recorder is not None:
        side = bool(reference.from_student)
        known = recorders[side]
        if reference.recorder not in known:
            section = "student_recorders" if side else "teacher_recorders"
            there = ", ".join(map(repr, known)) or "nothing"
            hint = did_you_mean(reference.recorder, known)
            problems.add(f"{where}.recorder", f"{reference.recorder!r} is not in {section}, which has {there}.{hint}")
    if reference.connector is not None and reference.connector not in connectors:
        there = ", ".join(map(repr, connectors)) or "nothing"
        hint = did_you_mean(reference.connector, connectors)
        problems.add(f"{where}.connector", f"{reference.connector!r} is not in connectors, which has {there}.{hint}")
