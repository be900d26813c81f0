"""Make values at points ready for gradients with respect to them, and take those gradients."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.captured import PointName
from fxkd.gradients import gradient, tracked
from fxkd.passes.insert_deliveries import QUIET
from fxkd.passes.insert_records import calls_of, record


@dataclass(frozen=True)
class InsertGradients(PassBase):
    """Put a ``tracked`` node behind each call of the points whose gradients are recorded; all later readers read it.

    Args:
        points: Recorder name -> point.
        side: Whose records they are.
        model: The side in whose graph the points are, if it is another.
    """

    points: Mapping[str, PointName]
    side: str
    model: str | None = None

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Insert what is tracked; a copy follows where later nodes write to it."""
        graph, model = graph_module.graph, self.model or self.side
        found = [(node, name, i) for name, point in self.points.items() for node, i in calls_of(graph, point, model)]
        for node, name, index in found:
            _track(graph, node, f"{self.side}.{name}", index)
        return PassResult(graph_module, modified=bool(found))


def _track(graph: fx.Graph, node: fx.Node, name: str, index: int) -> None:
    with graph.inserting_after(node):
        marked = graph.call_function(tracked, (node, f"{name}.source"))
    with graph.inserting_after(marked):
        passed_on = graph.call_function(torch.clone, (marked,))
    node.replace_all_uses_with(passed_on, delete_user_cb=lambda user: user is not marked)
    marked.meta.update(node.meta, **QUIET, gradient=(name, index))
    passed_on.meta.update(node.meta, **{**QUIET, "calls": node.meta.get("calls", ())})
    node.meta["calls"] = ()


def insert_gradient_records(graph: fx.Graph, name: str, loss: fx.Node, *, keep: bool) -> None:
    """Record, before the output, the gradients of ``loss`` at the tracked calls of the recorder ``name``."""
    for node in [node for node in graph.nodes if node.meta.get("gradient", ("",))[0] == name]:
        index = node.meta["gradient"][1]
        found = graph.call_function(gradient, (loss, node, keep, f"{name}.source"))
        marked = graph.call_function(record, (found, name, index))
        for new in (found, marked):
            new.meta.update(part="loss", val=node.meta.get("val"), storages=frozenset(), side=node.meta.get("side"))
