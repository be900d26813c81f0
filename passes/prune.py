"""Remove what feeds neither a loss nor the output: above all the teacher behind its last record."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.autograd.grad_mode import _enter_inference_mode, _exit_inference_mode
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.capture.guards import guard, guard_form
from fxkd.capture.probe import guard_shape
from fxkd.passes.describe import describe

GUARDS = (guard, guard_form, guard_shape)
MODES = (
    torch._C._set_grad_enabled,
    _enter_autocast,
    _exit_autocast,
    _enter_inference_mode,
    _exit_inference_mode,
)


@dataclass(frozen=True)
class Prune(PassBase):
    """Remove every node that the output does not need.

    Needed is what reaches the output; what writes to memory that a needed node reads later, at the next step too;
    before the last needed node of a model, and anywhere in a model whose own result is returned, its guards and the
    calls that may leave something behind; and, on the sides called ``stateful``, whatever keeps state of its own
    (running statistics, hooks, named functions): there a training step must do all that a plain one does.

    Args:
        stateful: The sides whose state must go on as without fxkd: those that train.
    """

    stateful: Collection[str] = ("student",)

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Erase what is not needed, last first."""
        graph = graph_module.graph
        needed = needed_nodes(graph, self.stateful)
        unneeded = [node for node in graph.nodes if node not in needed]
        remember(graph_module, unneeded)
        for node in reversed(unneeded):
            graph.erase_node(node)
        return PassResult(graph_module, modified=bool(unneeded))


def remember(graph_module: fx.GraphModule, unneeded: list[fx.Node]) -> None:
    """Add to ``graph_module.meta["pruned"]`` what is about to be removed, as plain data, for pictures and counts."""
    before = graph_module.meta.get("pruned", nx.MultiDiGraph())
    graph_module.meta["pruned"] = nx.compose(before, describe(graph_module, unneeded, pruned=True))


def dependencies(graph: fx.Graph) -> "nx.DiGraph[fx.Node]":
    """Give who reads whom: an edge from each node to each of its users."""
    network: nx.DiGraph[fx.Node] = nx.DiGraph()
    network.add_nodes_from(graph.nodes)
    network.add_edges_from((node, user) for node in graph.nodes for user in node.users)
    return network


def needed_nodes(graph: fx.Graph, stateful: Collection[str]) -> set[fx.Node]:
    """Give every node that must stay."""
    network, order = dependencies(graph), {node: place for place, node in enumerate(graph.nodes)}
    state, kept = _state(graph, stateful), _kept_between_steps(graph)
    roots = {node for node in graph.nodes if _always_needed(node, stateful, state)}
    needed: set[fx.Node] = set()
    while roots:
        needed |= _with_ancestors(network, roots)
        roots = {node for node in graph.nodes if node not in needed and _is_felt(node, needed, order, kept)}
    return needed


def _with_ancestors(network: "nx.DiGraph[fx.Node]", roots: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(roots)
    return found.union(*(nx.ancestors(network, root) for root in roots))


def _state(graph: fx.Graph, stateful: Collection[str]) -> frozenset[int]:
    """Give the memory of the tensors that hang on the stateful models."""
    held = [node for node in graph.nodes if node.op == "get_attr" and node.meta.get("side") in stateful]
    return frozenset().union(*(node.meta["storages"] for node in held))


def _kept_between_steps(graph: fx.Graph) -> frozenset[int]:
    """Give the memory of all that hangs on a model: what is written there is read at the next step."""
    held = [node.meta.get("storages", frozenset()) for node in graph.nodes if node.op == "get_attr"]
    return frozenset().union(*held, *(node.meta.get("reads", frozenset()) for node in graph.nodes))


def _always_needed(node: fx.Node, stateful: Collection[str], state: frozenset[int]) -> bool:
    if node.op in ("output", "placeholder") or node.target in MODES:
        return True
    if node.meta.get("side") not in stateful:
        return False
    return bool(node.meta.get("stateful")) or bool(node.meta.get("mutates", frozenset()) & state)


def _is_felt(node: fx.Node, needed: set[fx.Node], order: dict[fx.Node, int], kept: frozenset[int]) -> bool:
    """Tell whether a node that gives nothing still matters to a needed node after it, or to any at the next step."""
    written: frozenset[int] = node.meta.get("mutates", frozenset())
    has_effect = node.target in GUARDS or bool(node.meta.get("effect"))
    if not written and not has_effect:
        return False
    later = [other for other in needed if order[other] > order[node]]
    if has_effect and node.meta.get("side") in {other.meta.get(key) for other in later for key in ("side", "returns")}:
        return True
    lasting = written & kept
    return any(written & _touched(other) for other in later) or any(lasting & _touched(other) for other in needed)


def _touched(node: fx.Node) -> frozenset[int]:
    """Give the memory that a node reads, writes or gives."""
    held: list[frozenset[int]] = [source.meta.get("storages", frozenset()) for source in node.all_input_nodes]
    own = (node.meta.get(key, ()) for key in ("storages", "mutates", "reads"))
    return frozenset().union(*own, *held)
