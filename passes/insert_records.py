"""Put a ``record`` node behind each call of the points that recorders name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.captured import PointName, find_calls


def record(value: Any, name: str, index: int) -> Any:
    """Hold the value that the ``index``-th call of a point gave, under the recorder's ``name``; the identity."""
    return value


@dataclass(frozen=True)
class InsertRecords(PassBase):
    """Put a ``record`` node behind each call of the points that recorders name.

    Args:
        points: Recorder name -> point.
        side: Whose records they are, the first part of their names: ``"student"``.
        model: The side in whose graph the points are, if it is another: a student can be its own teacher.
    """

    points: Mapping[str, PointName]
    side: str
    model: str | None = None

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Insert the records of every recorder."""
        model = self.model or self.side
        found = [
            (node, name, index)
            for name, point in self.points.items()
            for node, index in calls_of(graph_module.graph, point, model)
        ]
        for node, name, index in found:
            with graph_module.graph.inserting_after(node):
                marked = graph_module.graph.call_function(record, (node, f"{self.side}.{name}", index))
            storages = node.meta.get("storages", frozenset())
            marked.meta.update(val=node.meta.get("val"), storages=storages, side=model)
        return PassResult(graph_module, modified=bool(found))


def calls_of(graph: fx.Graph, point: PointName, side: str) -> list[tuple[fx.Node, int]]:
    """List the nodes of ``side`` that hold the calls of ``point``, first call first."""
    found = [(node, index) for node, index in find_calls(graph, point) if node.meta.get("side") == side]
    return sorted(found, key=lambda call: call[1])


def records_of(graph: fx.Graph, side: str, name: str) -> list[fx.Node]:
    """List the records that the recorder ``name`` of ``side`` took, first call first."""
    found = [node for node in graph.nodes if node.target is record and node.args[1] == f"{side}.{name}"]
    return sorted(found, key=lambda node: int(node.args[2]))
