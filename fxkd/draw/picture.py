"""From a folded network to a Graphviz picture: teacher and student side by side, the distillation between them."""

from collections.abc import Iterable
from itertools import pairwise

import graphviz
import networkx as nx

from fxkd.draw.legend import legend
from fxkd.draw.style import FONT, GREY, colours, edge_style, node_style

MIDDLE = {"connector", "loss"}
OUTSIDE = {"input", "output"}


def picture(network: "nx.DiGraph[str]") -> graphviz.Digraph:
    """Draw the nodes of each side in a cluster of its own, and a legend; the same network gives the same text."""
    graph = graphviz.Digraph(
        "fxkd", graph_attr=_graph_style() | {"label": legend(network)}, node_attr=_node_style(), edge_attr=_edge_style()
    )
    sides = _sides(network)
    _keep_in_places(graph, network, sides)
    _nodes(graph, network, OUTSIDE)
    for side in sides:
        with graph.subgraph(name=f"cluster_{side}") as cluster:
            cluster.attr(**_cluster_style(side, network.graph["models"].get(side)))
            _nodes(cluster, network, {side})
    with graph.subgraph(name="cluster_distillation") as cluster:
        cluster.attr(label="", style="invis")
        _nodes(cluster, network, MIDDLE)
    for source, target in sorted(network.edges, key=lambda edge: _leftness(network, edge)):
        graph.edge(source, target, **edge_style(network.nodes[source], network.nodes[target]))
    return graph


def _leftness(network: "nx.DiGraph[str]", edge: tuple[str, str]) -> bool:
    """Let records of the student, which is on the right, come first, and those of a teacher last."""
    source, target = (network.nodes[name] for name in edge)
    return bool((target["kind"] == "record") != (source["side"] in ("student", "model")))


def _sides(network: "nx.DiGraph[str]") -> list[str]:
    """List the models in the order drawn, teachers first."""
    found = dict.fromkeys(data["side"] for _, data in network.nodes(data=True))
    return sorted((side for side in found if side not in MIDDLE | OUTSIDE), key=lambda side: side == "student")


def _nodes(graph: graphviz.Digraph, network: "nx.DiGraph[str]", sides: Iterable[str]) -> None:
    for name, data in network.nodes(data=True):
        if data["side"] in sides:
            graph.node(name, **node_style(data))


def _keep_in_places(graph: graphviz.Digraph, network: "nx.DiGraph[str]", sides: list[str]) -> None:
    """Keep the sides in the order given, and let them begin in one row.

    Graphviz orders neither clusters nor what is in different ones; it does order free nodes. So each side hangs on an
    invisible free node above it, by two edges, as the more are crossed the less Graphviz likes to swap sides.
    """
    with graph.subgraph() as row:
        row.attr(rank="same")
        for side in sides:
            row.node(f"above.{side}", label="", shape="point", width="0", height="0", style="invis")
        for left, right in pairwise(sides):
            row.edge(f"above.{left}", f"above.{right}", style="invis")
    for side in sides:
        for _ in range(2):
            graph.edge(f"above.{side}", _first(network, side), style="invis", weight="20")


def _first(network: "nx.DiGraph[str]", side: str) -> str:
    """Find the node where ``side`` begins: one that takes an input of the graph, if there is one."""
    own = [name for name, data in network.nodes(data=True) if data["side"] == side]
    entered = [name for name in own if any(network.nodes[n]["side"] == "input" for n in network.predecessors(name))]
    return (entered or own)[0]


def _cluster_style(side: str, model: str | None) -> dict[str, str]:
    line, _ = colours(side)
    title = {"label": f"{side}: {model}" if model else side, "fontcolor": line, "fontsize": "15", "labelloc": "t"}
    return title | {"labeljust": "r" if side == "student" else "l", "color": line, "style": "rounded"}


def _graph_style() -> dict[str, str]:
    text = {"fontname": FONT, "fontsize": "11", "labeljust": "l", "labelloc": "b"}
    return text | {
        "rankdir": "TB",
        "newrank": "true",
        "ranksep": "0.28",
        "nodesep": "0.3",
        "pad": "0.2",
        "bgcolor": "white",
    }


def _node_style() -> dict[str, str]:
    return {"fontname": FONT, "fontsize": "12", "height": "0.1", "margin": "0.12,0.05"}


def _edge_style() -> dict[str, str]:
    return {"fontname": FONT, "fontsize": "11", "color": GREY, "arrowsize": "0.7"}
