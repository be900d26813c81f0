"""What a capture gives: a graph, what was called at each named point, and notes for the reader."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from fxkd.capture.held import Held, kinds_and_hooks
from fxkd.points import Place, held_at


class PointName(NamedTuple):
    """A named place in a model: the kind of point, as a recorder's ``type`` says it, and its path."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class PointCall:
    """One call of a named point; a node that holds its value carries it in ``node.meta["calls"]``."""

    point: PointName
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A model as a graph.

    Args:
        name: The attribute under which the model hangs, the first part of every target: ``"student"``.
        graph: Its nodes; ``node.meta`` holds ``val`` (the example value on fake tensors), ``storages`` and
            ``mutates`` (what memory a node gives and changes) and ``calls`` (the named points it holds).
        constants: Tensors and objects that the run met outside the model, by target below ``<name>_constants``.
        flags: The modules and the ``training`` flag each had: the graph holds for these flags only.
        held: What else the program read from its modules, and what that was.
        surroundings: The types, devices and hooks of the whole model.
        kept: The tensors that stood for the model's own; while they live no other memory has their identity.
        functions: The places of named functions and what stood there: the graph calls that.
        notes: What a reader should know: what was opened and why, what was lifted.
    """

    name: str
    graph: fx.Graph
    constants: nn.Module
    flags: tuple[tuple[nn.Module, bool], ...]
    held: tuple[Held, ...] = ()
    surroundings: Any = None
    kept: Any = field(default=None, repr=False)
    functions: tuple[tuple[Place, object], ...] = ()
    notes: tuple[str, ...] = ()

    def calls(self, point: PointName) -> list[fx.Node]:
        """List the nodes that hold the calls of ``point``, first call first."""
        return [node for node, _ in sorted(find_calls(self.graph, point), key=lambda found: found[1])]

    def holds(self) -> bool:
        """Tell whether every module is in the mode it was captured in, and holds what the program read from it."""
        if not all(module.training is training for module, training in self.flags):
            return False
        if any(held_at(place) != function for place, function in self.functions):
            return False
        if torch.compiler.is_compiling():  # numbers become guards of the compiled region; the rest it cannot follow
            return all(getattr(held.module, held.name) == held.form[1] for held in self.held if held.is_number)
        same = kinds_and_hooks(module for module, _ in self.flags) == self.surroundings
        return same and all(held.holds() for held in self.held)

    def changed(self) -> list[str]:
        """Name what the program read from its modules and is something else now."""
        return [f"{type(held.module).__name__}.{held.name}" for held in self.held if not held.holds()]


def find_calls(graph: fx.Graph, point: PointName) -> Iterator[tuple[fx.Node, int]]:
    """Yield each node of ``graph`` that holds a call of ``point``, with the number of the call."""
    for node in graph.nodes:
        for call in node.meta.get("calls", ()):
            if call.point == point:
                yield node, call.index


def call_inputs(record: list[Any], args: Any, kwargs: Any) -> list[Any]:
    """Give the record of a function's inputs; the other arguments are what it was called with, ``self`` left out."""
    return record


def bundle(value: Any) -> Any:
    """Hold several values as the one value that a call took or gave; the identity when it runs."""
    return value
