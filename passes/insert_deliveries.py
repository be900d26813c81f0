"""Let the student take the teacher's values: each call of a point in the student is replaced by a ``deliver`` node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.captured import PointName
from fxkd.passes.insert_records import calls_of
from fxkd.records import detached, pick, with_part

QUIET: Mapping[str, Any] = {"calls": (), "takes": (), "mutates": frozenset(), "stateful": False, "effect": False}
"""What the notes on a call do not say of a node that only holds its value."""


def deliver(value: Any, name: str, index: int) -> Any:
    """Give the student the value of the teacher's ``index``-th call, under the delivery's ``name``; the identity."""
    return value


@dataclass(frozen=True)
class InsertDeliveries(PassBase):
    """Replace each call of a point in ``target`` by the value of the same call in ``source``, first in first out.

    A replaced call is gone from the graph; what only it needed is left to ``Prune``. A point of inputs keeps its call,
    which is given what the other call was given; of a point with a part, only that part of the value is replaced.

    Args:
        points: Delivery name -> point.
        source: The side that gives.
        target: The side that takes.
        taken: Delivery name -> the point in ``target``, where it is another.
        parts: Delivery name -> which part of the value is handed over, where it is not all.
        is_cut: Whether no gradient flows back to the side that gives.
    """

    points: Mapping[str, PointName]
    source: str = "teacher"
    target: str = "student"
    taken: Mapping[str, PointName] = field(default_factory=dict)
    parts: Mapping[str, int | str] = field(default_factory=dict)
    is_cut: bool = False

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Substitute the values of every delivery."""
        graph, modified = graph_module.graph, False
        for name, point in self.points.items():
            given, there = calls_of(graph, point, self.source), self.taken.get(name, point)
            is_of_inputs = point.kind.endswith("Inputs")
            taken = takers_of(graph, there, self.target) if is_of_inputs else calls_of(graph, there, self.target)
            for (source, index), (target, _) in zip(given, taken, strict=False):
                if is_of_inputs:
                    _give_inputs(graph, source, target, name, index)
                elif name in self.parts:
                    _substitute_part(graph, source, target, name, index, self.parts[name])
                else:
                    _substitute(graph, source, target, name, index)
                modified = True
        for node in [node for node in graph.nodes if node.target is deliver] if self.is_cut else ():
            node.meta["given"] = cut(graph, node, given_at(graph, node)).name
        return PassResult(graph_module, modified)


def cut(graph: fx.Graph, node: fx.Node, after: fx.Node | None = None) -> fx.Node:
    """Detach what a delivery or a record holds, behind a node or right before."""
    source: Any = node.args[0]
    with graph.inserting_before(node) if after is None else graph.inserting_after(after):
        made = graph.call_function(detached, (source,))
    made.meta.update(source.meta, **QUIET, side=node.meta["side"])
    node.update_arg(0, made)
    return made


def given_at(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Find the node behind which a delivery takes its value: the value's own, or, of inputs, that of their call."""
    found: list[fx.Node] = [one for one in graph.nodes if one is node.args[0] or one.name == node.meta["given"]]
    return found[-1]


def takers_of(graph: fx.Graph, point: PointName, side: str) -> list[tuple[fx.Node, int]]:
    """List the nodes of ``side`` that are the calls of which ``point`` names the inputs, first call first."""
    found = [
        (node, call.index)
        for node in graph.nodes
        for call in node.meta.get("takes", ())
        if call.point == point and node.meta.get("side", side) == side
    ]
    return sorted(found, key=lambda call: call[1])


def _substitute(graph: fx.Graph, source: fx.Node, target: fx.Node, name: str, index: int) -> None:
    """Put ``deliver(source)`` in the place of ``target``; memory that was the target's is now the source's."""
    with graph.inserting_before(target):
        taken = _deliver(graph, source, target.meta["side"], name, index)
    taken.meta.update(
        {key: value for key, value in target.meta.items() if key not in (*taken.meta, "function", "takes")}
    )
    target.replace_all_uses_with(taken)
    graph.erase_node(target)
    rename_memory(graph, taken.meta["side"], target.meta.get("storages", frozenset()), taken.meta["storages"])


def _substitute_part(graph: fx.Graph, source: fx.Node, target: fx.Node, name: str, index: int, part: int | str) -> None:
    """Put the target's value with one part of the source's in its place."""
    with graph.inserting_after(source):
        picked = graph.call_function(pick, (source, part, name))
    picked.meta.update(source.meta, val=pick(source.meta["val"], part, name), **QUIET)
    with graph.inserting_before(target):
        taken = _deliver(graph, picked, target.meta["side"], name, index)
    with graph.inserting_after(target):
        changed = graph.call_function(with_part, (target, part, taken, name))
    target.replace_all_uses_with(changed, delete_user_cb=lambda user: user is not changed)
    own, new = target.meta.get("storages", frozenset()), taken.meta["storages"]
    changed.meta.update(target.meta, **{**QUIET, "storages": own | new, "calls": target.meta.get("calls", ())})
    target.meta["calls"] = ()
    _add_memory(changed, own, new)


def _give_inputs(graph: fx.Graph, source: fx.Node, target: fx.Node, name: str, index: int) -> None:
    """Let ``target`` be called with what the call behind ``source`` was called with."""
    side, old = target.meta["side"], _memory(target.all_input_nodes)
    args: Any
    kwargs: Any
    args, kwargs = source.args[-2:]
    delivered: dict[fx.Node, fx.Node] = {}

    def taken(node: fx.Node) -> fx.Node:
        if node not in delivered:
            delivered[node] = _deliver(graph, node, side, name, index)
            delivered[node].meta["given"] = source.name
        return delivered[node]

    with graph.inserting_before(target):
        own, given = target.args[: target.meta.get("own", 0)], fx.node.map_arg(args, taken)
        target.args = (*own, *given)
        target.kwargs = fx.node.map_arg(kwargs, taken)
    _add_memory(target, old, _memory(delivered.values()))


def _deliver(graph: fx.Graph, source: fx.Node, side: str, name: str, index: int) -> fx.Node:
    taken = graph.call_function(deliver, (source, name, index))
    storages = source.meta.get("storages", frozenset())
    taken.meta.update(val=source.meta.get("val"), storages=storages, side=side, mutates=frozenset(), stateful=False)
    taken.meta["given"] = source.name
    return taken


def _memory(nodes: Iterable[fx.Node]) -> frozenset[int]:
    return frozenset().union(*(node.meta.get("storages", frozenset()) for node in nodes))


def _add_memory(start: fx.Node, old: frozenset[int], new: frozenset[int]) -> None:
    """Say of ``start`` and all behind it that what concerns the memory ``old`` concerns ``new`` too."""
    node = start
    while node.op != "output":
        for key in ("storages", "mutates"):
            if node.meta.get("side") == start.meta["side"] and node.meta.get(key, frozenset()) & old:
                node.meta[key] = node.meta[key] | new
        node = node.next


def rename_memory(graph: fx.Graph, side: str, old: frozenset[int], new: frozenset[int]) -> None:
    """Say of every node of ``side`` that what lived in the memory ``old`` lives in ``new``."""
    for node in graph.nodes:
        if node.meta.get("side") != side:
            continue
        for key in ("storages", "mutates"):
            if node.meta.get(key, frozenset()) & old:
                node.meta[key] = (node.meta[key] - old) | new
