"""The modules that a spec describes, made of it."""

from collections.abc import Callable, Mapping

from torch import nn

from fxkd import registry
from fxkd.errors import Problems, SpecError
from fxkd.registry import Registry
from fxkd.spec.check import student_loss_class
from fxkd.spec.spec import Spec
from fxkd.spec.vocabulary import Config, StudentLoss

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
            built[name] = family.build(config)
        except SpecError as error:
            note(f"{section}.{name}", error)
    return built


def _build_student_loss(spec: Spec, note: Note) -> nn.Module | None:
    given = spec.student_loss
    if not isinstance(given, StudentLoss):
        return None
    try:
        return student_loss_class(given)(**given.options)
    except Exception as error:  # noqa: BLE001 (what an option does in a class of torch's or of a user's)
        told = SpecError([f"{given.type}: {type(error).__name__} as it was built: {error}"])
        told.__cause__ = error
        note("student_loss", told)
        return None
