"""What is to be captured, with every name in it resolved."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fxkd.capture.callables import Kind
from fxkd.capture.captured import PointName
from fxkd.capture.contents import Contents
from fxkd.capture.draws import drawn_state
from fxkd.capture.inputs import Inputs, Layout
from fxkd.capture.preserve import Caches
from fxkd.capture.twins import Fakes
from fxkd.operations import split_operation
from fxkd.points import Place, find_function, find_method, find_module, find_parameter


@dataclass(frozen=True, slots=True)
class Plan:
    """A capture as it was asked for, resolved.

    Args:
        model: What is run.
        inputs: What it is run on.
        layout: The form of that call.
        name: The first part of every target.
        points: What must be found again.
        whole: The points that stay one node.
        grad: Whether the graph runs with gradients.
        paths: Where each module hangs, by identity.
        modules: The points on each module, by identity.
        operations: The points inside the forward of a module, by its path and the operation's name.
        places: The points on each function and method, by path.
        caches: What must be emptied after each run.
        contents: What the model holds before it is run, and its own random generators.
        fakes: What tensors without values are made with.
        kinds: What named functions do that fake tensors do not show, by path, as far as that is known.
    """

    model: nn.Module
    inputs: Inputs
    layout: Layout
    name: str
    points: tuple[PointName, ...]
    whole: frozenset[PointName]
    grad: bool
    paths: dict[int, str]
    modules: dict[int, tuple[PointName, ...]]
    operations: dict[tuple[str, str], PointName]
    places: dict[str, tuple[Place, tuple[PointName, ...]]]
    caches: Caches
    contents: Contents
    fakes: Fakes
    kinds: dict[str, Kind] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: Inputs,
        layout: Layout,
        name: str,
        points: tuple[PointName, ...],
        whole: frozenset[PointName],
        grad: bool,
    ) -> "Plan":
        paths = {id(module): path for path, module in model.named_modules()}
        modules: dict[int, tuple[PointName, ...]] = {}
        operations: dict[tuple[str, str], PointName] = {}
        places: dict[str, tuple[Place, tuple[PointName, ...]]] = {}
        for point in points:
            if point.kind.startswith("Module"):
                key = id(find_module(model, point.path))
                modules[key] = (*modules.get(key, ()), point)
            elif point.kind == "Operation":
                path, operation = split_operation(point.path)
                key = id(find_module(model, path))
                modules[key] = (*modules.get(key, ()), point)
                operations[paths[key], operation] = point
            elif point.kind == "Parameter":
                find_parameter(model, point.path)
            else:
                find = find_function if point.kind.startswith("Function") else find_method
                place, named = places.get(point.path, (find(point.path), ()))
                places[point.path] = place, (*named, point)
        return cls(
            model=model,
            inputs=inputs,
            layout=layout,
            name=name,
            points=points,
            whole=whole,
            grad=grad,
            paths=paths,
            modules=modules,
            operations=operations,
            places=places,
            caches=Caches(),
            contents=Contents(model),
            fakes=Fakes(),
        )

    def drawn(self) -> tuple[Any, ...]:
        """Give the states of all generators of Python and numpy, comparable by ``==``."""
        return (*drawn_state(), self.contents.generators.drawn())

    def ancestors(self) -> set[int]:
        """Give the modules on the way to each point in a module, by every name that leads there.

        A module whose operations are points is one of them.
        """
        found = {key for key, points in self.modules.items() if any(point.kind == "Operation" for point in points)}
        for path, module in self.model.named_modules(remove_duplicate=False):
            if id(module) in self.modules and path:
                names = path.split(".")
                found.update(id(self.model.get_submodule(".".join(names[:depth]))) for depth in range(len(names)))
        return found
