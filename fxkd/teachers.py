"""Several teachers as one: each by its name, all given what the student is given."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from fxkd.errors import Problems


class Teachers(nn.ModuleDict):
    """Run several teachers on the same call; a point of one is named by the teacher, then the path in it.

    Args:
        teachers: Name -> model.

    >>> teachers = Teachers({"deep": nn.Linear(2, 3), "wide": nn.Linear(2, 4)})
    >>> import torch
    >>> {name: output.shape for name, output in teachers(torch.ones(1, 2)).items()}
    {'deep': torch.Size([1, 3]), 'wide': torch.Size([1, 4])}
    """

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: teacher(*args, **kwargs) for name, teacher in self.items()}


def one_teacher(given: Any, problems: Problems) -> nn.Module | None:
    """Make one module of what ``prepare`` is given as teacher; note what is no model."""
    if given is None or isinstance(given, nn.Module):
        return given
    if not isinstance(given, Mapping):
        problems.add("teacher", f"is {what_it_is(given)}; give an nn.Module, a dict of several by name, or None")
        return None
    before = len(problems.found)
    for problem in _wrong(given):
        problems.add("teacher", problem)
    return Teachers(given) if len(problems.found) == before else None


def _wrong(given: Mapping[Any, Any]) -> Iterator[str]:
    if not given:
        yield "is an empty dict; give a teacher, or None for a student that is its own"
    held = nn.ModuleDict()
    for name, model in given.items():
        if not isinstance(name, str) or not name or "." in name or hasattr(held, name):
            yield f"has the name {name!r}: a teacher's name is a text without dots that no dict has as attribute"
        if not isinstance(model, nn.Module):
            yield f"{name!r} is {what_it_is(model)}; give an nn.Module"


def what_it_is(given: object) -> str:
    """Say what stands where a model should.

    >>> what_it_is(nn.Linear), what_it_is(3)
    ('the class Linear and no object of it', 'a int')
    """
    return f"the class {given.__name__} and no object of it" if isinstance(given, type) else f"a {type(given).__name__}"


def teachers_in(teacher: nn.Module | None) -> dict[str, nn.Module]:
    """Give the teachers by name; a single one is called ``teacher``."""
    if teacher is None:
        return {}
    return dict(teacher.items()) if isinstance(teacher, Teachers) else {"teacher": teacher}
