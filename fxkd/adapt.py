"""Connectors that are set by the module whose value they take, such as the margins of an overhaul of features."""

from collections.abc import Callable, Iterator, Mapping

from torch import nn

from fxkd.errors import PointError, Problems, SpecError
from fxkd.points import find_module
from fxkd.spec import Reference, Spec


def adapt(connectors: nn.ModuleDict, spec: Spec, models: Mapping[bool, nn.Module], problems: Problems) -> None:
    """Call ``adapt(module)`` of every connector that has it, with the module that its recorder names.

    Args:
        connectors: What was built.
        spec: What says where they stand.
        models: The student under True, the teacher under False.
        problems: Where it is noted what a connector refuses.
    """
    for loss, mapping in spec.loss_forward_mappings.items():
        for argument, reference in mapping.items():
            name, model = reference.connector or "", models[bool(reference.from_student)]
            for take in _takers(connectors[name]) if name in connectors else ():
                try:
                    take(_module_of(reference, spec, model))
                except (PointError, SpecError) as error:
                    problems.add(f"loss_forward_mappings.{loss}.{argument}.connector", f"{name!r}: {error}")


def _takers(connector: nn.Module) -> Iterator[Callable[[nn.Module], None]]:
    """Give what takes the module, of a connector or of those in a chain."""
    for part in connector.children() if isinstance(connector, nn.Sequential) else (connector,):
        take = getattr(part, "adapt", None)
        if callable(take):
            yield take


def _module_of(reference: Reference, spec: Spec, model: nn.Module) -> nn.Module:
    recorder = (spec.student_recorders if reference.from_student else spec.teacher_recorders)[reference.recorders[0]]
    if not recorder.type.startswith("Module"):
        raise SpecError([f"it adapts to a module, and the record is of type {recorder.type!r}"])
    return find_module(model, recorder.source)
