"""Remove what feeds neither a loss nor the output: above all the teacher behind its last record."""

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.tape import guard

MODES = (torch._C._set_grad_enabled, _enter_autocast, _exit_autocast)


@dataclass(frozen=True)
class Prune(PassBase):
    """Remove every node that the output does not need.

    Needed is what reaches the output, what writes to memory that a needed node reads later, a guard before the last
    needed node of its model, and, on the side called ``stateful``, whatever keeps state of its own (running
    statistics, hooks, named functions): there a training step must do all that a plain one does.

    Args:
        stateful: The side whose state must go on as without fxkd; None prunes state as well.
    """

    stateful: str | None = "student"

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Erase what is not needed, last first."""
        graph = graph_module.graph
        needed = needed_nodes(graph, self.stateful)
        unneeded = [node for node in graph.nodes if node not in needed]
        for node in reversed(unneeded):
            graph.erase_node(node)
        return PassResult(graph_module, modified=bool(unneeded))


def dependencies(graph: fx.Graph) -> "nx.DiGraph[fx.Node]":
    """Give who reads whom: an edge from each node to each of its users."""
    network: nx.DiGraph[fx.Node] = nx.DiGraph()
    network.add_nodes_from(graph.nodes)
    network.add_edges_from((node, user) for node in graph.nodes for user in node.users)
    return network


def needed_nodes(graph: fx.Graph, stateful: str | None) -> set[fx.Node]:
    """Give every node that must stay."""
    network, order = dependencies(graph), {node: place for place, node in enumerate(graph.nodes)}
    roots = {node for node in graph.nodes if _always_needed(node, stateful)}
    needed: set[fx.Node] = set()
    while roots:
        needed |= _with_ancestors(network, roots)
        roots = {node for node in graph.nodes if node not in needed and _is_felt(node, needed, order)}
    return needed


def _with_ancestors(network: "nx.DiGraph[fx.Node]", roots: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(roots)
    return found.union(*(nx.ancestors(network, root) for root in roots))


def _always_needed(node: fx.Node, stateful: str | None) -> bool:
    if node.op in ("output", "placeholder") or node.target in MODES:
        return True
    return node.meta.get("side") == stateful and (bool(node.meta.get("stateful")) or _writes_attribute(node))


def _writes_attribute(node: fx.Node) -> bool:
    """Tell whether a function of torch writes to a tensor that hangs on the model."""
    held = [source.meta["storages"] for source in node.all_input_nodes if source.op == "get_attr"]
    return bool(node.meta.get("mutates", frozenset()) & frozenset().union(*held))


def _is_felt(node: fx.Node, needed: set[fx.Node], order: dict[fx.Node, int]) -> bool:
    """Tell whether a node that gives nothing still matters to a needed node after it."""
    written = node.meta.get("mutates")
    if not written and node.target is not guard:
        return False
    later = (other for other in needed if order[other] > order[node])
    if node.target is guard:
        return any(other.meta.get("side") == node.meta.get("side") for other in later)
    return any(written & _touched(other) for other in later)


def _touched(node: fx.Node) -> frozenset[int]:
    """Give the memory that a node reads, writes or gives."""
    read = (source.meta.get("storages", frozenset()) for source in node.all_input_nodes)
    return node.meta.get("storages", frozenset()).union(node.meta.get("mutates", frozenset()), *read)
