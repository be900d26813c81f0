"""The modules that a spec describes, made of it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fxkd import registry
from fxkd.errors import Problems, SpecError
from fxkd.registry import Registry
from fxkd.schedule import Schedule, Scheduled, first_values, is_schedule
from fxkd.spec.check import student_loss_class
from fxkd.spec.spec import Spec
from fxkd.spec.vocabulary import Config, StudentLoss
from fxkd.weighted import Weighted

Note = Callable[[str, SpecError], None]


def build_parts(spec: Spec) -> tuple[nn.ModuleDict, nn.ModuleDict, nn.Module | None]:
    """Build the connectors, the losses and the student's own loss of a spec.

    Raises:
        SpecError: One report of all that do not take their options.

    >>> spec = Spec.load({"pairs": [{"student": "0", "teacher": "0", "loss": {"type": "L1Loss"}}]})
    >>> build_parts(spec)[1]
    ModuleDict(
      (loss_0): L1Loss()
    )
    """
    problems = Problems(dict(spec.lines))
    parts = build_each(spec, lambda where, error: problems.add(where, str(error)))
    problems.raise_if_any()
    return parts


def build_each(spec: Spec, note: Note) -> tuple[nn.ModuleDict, nn.ModuleDict, nn.Module | None]:
    """Build those that can be built; ``note`` gets the place of each other one, and what its class raised."""
    connectors = _build(registry.connectors, spec.connectors, "connectors", note)
    losses = _build(registry.losses, spec.distill_losses, "distill_losses", note)
    return nn.ModuleDict(connectors), nn.ModuleDict(losses), _build_student_loss(spec, note)


def _build(family: Registry, configs: Mapping[str, Config], section: str, note: Note) -> dict[str, nn.Module]:
    built = {}
    for name, config in configs.items():
        try:
            built[name] = _build_one(family, config)
        except SpecError as error:
            note(f"{section}.{name}", error)
    return built


def _build_one(family: Registry, config: Config) -> nn.Module:
    if not isinstance(config, Mapping):
        return family.build(config)
    first, schedules = first_values(config)
    module = family.build(first)
    if schedules:
        _refuse_bad_end(family, {**first, **{name: schedule.last for name, schedule in schedules.items()}})
    for one in _moving(module, schedules):
        one.put(0)
    return module


def _refuse_bad_end(family: Registry, last: Mapping[str, Any]) -> None:
    """Refuse now what a class does not take where its schedules arrive."""
    with torch.random.fork_rng(devices=()):
        try:
            family.build(last)
        except SpecError as error:
            raise SpecError([f"{error} Its schedule arrives there"]) from None


def scheduled(spec: Spec, connectors: nn.ModuleDict, losses: nn.ModuleDict, own: nn.Module | None) -> list[Scheduled]:
    """List the numbers of what was built that schedules move."""
    sections = [(spec.connectors, connectors), (spec.distill_losses, losses)]
    found = [
        one
        for configs, modules in sections
        for name, config in configs.items()
        if isinstance(config, Mapping)
        for one in _moving(modules[name], first_values(config)[1])
    ]
    if own is not None and isinstance(spec.student_loss, StudentLoss) and is_schedule(spec.student_loss.weight):
        found.append(Scheduled(own, "loss_weight", Schedule.read(spec.student_loss.weight)))
    return found


def _moving(module: nn.Module, schedules: Mapping[str, Schedule]) -> list[Scheduled]:
    """Find what holds each number.

    Raises:
        SpecError: A class keeps no such number.
    """
    found = []
    for name, schedule in schedules.items():
        inner = isinstance(module, Weighted) and name != "loss_weight"
        holder = module.get_submodule("loss") if inner else module
        if not isinstance(getattr(holder, name, None), (int, float, Tensor)):
            kind = type(holder).__name__
            raise SpecError(
                [f"{kind} keeps no number {name!r} as an attribute of that name, so no schedule can move it"]
            )
        found.append(Scheduled(holder, name, schedule))
    return found


def _build_student_loss(spec: Spec, note: Note) -> nn.Module | None:
    given = spec.student_loss
    if not isinstance(given, StudentLoss):
        return None
    try:
        built = student_loss_class(given)(**given.options)
    except Exception as error:  # noqa: BLE001 (what an option does in a class of torch's or of a user's)
        told = SpecError([f"{given.type}: {type(error).__name__} as it was built: {error}"])
        told.__cause__ = error
        note("student_loss", told)
        return None
    if given.weight == 1:
        return built
    weighted = Weighted(built, given.weight)
    if is_schedule(given.weight):
        weighted.loss_weight = 1.0
        Scheduled(weighted, "loss_weight", Schedule.read(given.weight)).put(0)
    return weighted
