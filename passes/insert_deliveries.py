"""Let the student take the teacher's values: each call of a point in the student is replaced by a ``deliver`` node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.captured import PointName
from fxkd.passes.insert_records import calls_of


def deliver(value: Any, name: str, index: int) -> Any:
    """Give the student the value of the teacher's ``index``-th call, under the delivery's ``name``; the identity."""
    return value


@dataclass(frozen=True)
class InsertDeliveries(PassBase):
    """Replace each call of a point in ``target`` by the value of the same call in ``source``, first in first out.

    The replaced call is gone from the graph; what only it needed is left to ``Prune``.

    Args:
        points: Delivery name -> point.
        source: The side that gives.
        target: The side that takes.
    """

    points: Mapping[str, PointName]
    source: str = "teacher"
    target: str = "student"

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Substitute the values of every delivery."""
        modified = False
        for name, point in self.points.items():
            given = calls_of(graph_module.graph, point, self.source)
            taken = calls_of(graph_module.graph, point, self.target)
            for (source, index), (target, _) in zip(given, taken, strict=False):
                _substitute(graph_module.graph, source, target, name, index)
                modified = True
        return PassResult(graph_module, modified)


def _substitute(graph: fx.Graph, source: fx.Node, target: fx.Node, name: str, index: int) -> None:
    """Put ``deliver(source)`` in the place of ``target``; memory that was the target's is now the source's."""
    with graph.inserting_before(target):
        taken = graph.call_function(deliver, (source, name, index))
    taken.meta.update(target.meta, val=source.meta.get("val"), storages=source.meta.get("storages", frozenset()))
    taken.meta.pop("function", None)
    taken.meta.update(mutates=frozenset(), stateful=False)
    target.replace_all_uses_with(taken)
    graph.erase_node(target)
    rename_memory(graph, taken.meta["side"], target.meta.get("storages", frozenset()), taken.meta["storages"])


def rename_memory(graph: fx.Graph, side: str, old: frozenset[int], new: frozenset[int]) -> None:
    """Say of every node of ``side`` that what lived in the memory ``old`` lives in ``new``."""
    for node in graph.nodes:
        if node.meta.get("side") != side:
            continue
        for key in ("storages", "mutates"):
            if node.meta.get(key, frozenset()) & old:
                node.meta[key] = (node.meta[key] - old) | new
