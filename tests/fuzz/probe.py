"""Look at two models before a spec is drawn: what can be named, how often it is called, what it gives."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.fuzz import functions
from tests.fuzz.models import INPUTS, NetRecipe
from tests.fuzz.parts import numbers_in
from tests.support.oracle import seed_everything
from tests.support.plain import Plain, Several

METHODS = tuple(f"tests.fuzz.models.Block.{name}" for name in ("tweak", "parted"))
FUNCTIONS = tuple(f"{functions.PATH}.{name}" for name in functions.NAMES)
CAPTURED = 3  # samples in the batch that is looked at


def form(value: Any) -> Any:
    """Give the types and shapes of a nested value."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, Mapping):
        return type(value), {key: form(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [form(part) for part in value]
    return form(vars(value)) if dataclasses.is_dataclass(value) else value


@dataclass(frozen=True)
class Point:
    """Something that a recorder can name."""

    kind: str
    path: str
    values: tuple[Any, ...]  # call by call

    def form(self) -> Any:
        """Give what two points must have in common if one is to stand for the other."""
        return form(self.values)


def teacher_of(recipes: tuple[NetRecipe, ...]) -> nn.Module | None:
    """Build the teachers as one module."""
    if not recipes:
        return None
    if len(recipes) == 1:
        return recipes[0].build()
    return Several({f"t{number}": recipe.build() for number, recipe in enumerate(recipes)})


def batch_of(recipe: NetRecipe, size: int, seed: int) -> Tensor:
    """Make inputs."""
    return torch.randn(size, *INPUTS[recipe.family], generator=torch.Generator().manual_seed(seed))


def labels_of(size: int, seed: int) -> Tensor:
    """Make labels."""
    return torch.randint(4, (size,), generator=torch.Generator().manual_seed(seed))


def points_of(
    student: nn.Module, teacher: nn.Module | None, deliveries: Mapping[str, Any], x: Tensor
) -> dict[str, list[Point]]:
    """Run both once under ``deliveries`` and list what was called."""
    models = {"student": student, "teacher": student if teacher is None else teacher}
    recorders = {f"{side}_recorders": all_of(model) for side, model in models.items()}
    plain = Plain(
        copy.deepcopy(student).eval(),
        None if teacher is None else copy.deepcopy(teacher).eval(),
        {**recorders, "distill_deliveries": deliveries, "student_loss": False},
        {},
        {},
    )
    seed_everything(0)
    with torch.no_grad():
        records = plain(x).records
    return {
        side: [
            Point(recorder["type"], recorder["source"], tuple(records[side][name]))
            for name, recorder in recorders[f"{side}_recorders"].items()
            if numbers_in(records[side][name])
        ]
        for side in models
    }


def all_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """Record all that can be named in a model."""
    kinds = {
        "Module": [name for name, _ in model.named_modules() if name or not isinstance(model, Several)],
        "Function": FUNCTIONS,
        "Method": METHODS,
    }
    found = [{"type": f"{k}{end}", "source": p} for k, paths in kinds.items() for p in paths for end in ENDS]
    found += [{"type": "Parameter", "source": name} for name, _ in model.named_parameters()]
    return {str(index): recorder for index, recorder in enumerate(found)}


ENDS = ("Outputs", "Inputs")
