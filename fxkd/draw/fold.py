"""Fold away what a reader does not look for, so that the picture of two whole models can be read."""

from typing import Any

import networkx as nx

DROPPED = {"attribute", "number", "guard", "mode"}  # they carry no activation
BRIDGED = {"pick", "bundle", "mean", "clone"}  # their readers are drawn as reading what they read
SUMMARY = ("0.losses.", "0.student_loss")  # what the output lists beside the total


def fold(network: "nx.MultiDiGraph[str]") -> "nx.DiGraph[str]":
    """Give the network without plumbing, with one edge for each pair.

    Parts of values, bundles, means, copies and identities are bridged; sizes, guards, switches, and attributes that
    are no points, are left out.
    """
    kept: nx.DiGraph[str] = nx.DiGraph(**network.graph)
    kept.add_nodes_from((name, data) for name, data in network.nodes(data=True) if not _is_folded(data))
    for source, target, data in network.edges(data=True):
        if target in kept and not _is_listing(network, source, target, data["argument"]):
            kept.add_edges_from((origin, target) for origin in _origins(network, source, kept))
    return kept


def _is_folded(data: dict[str, Any]) -> bool:
    if data["kind"] in DROPPED:
        return not data["points"]
    return _is_bridged(data)


def _is_bridged(data: dict[str, Any]) -> bool:
    return data["kind"] in BRIDGED or (data["class"] == "Identity" and not data["points"])


def _is_listing(network: "nx.MultiDiGraph[str]", source: str, target: str, argument: str) -> bool:
    """Tell whether an edge only lets the output list a loss that is drawn on its way to the total."""
    if network.nodes[target]["kind"] != "output" or not argument.startswith(SUMMARY):
        return False
    return any(reader != target for reader in network.successors(source))


def _origins(network: "nx.MultiDiGraph[str]", source: str, kept: "nx.DiGraph[str]") -> list[str]:
    """Find the drawn nodes whose values reach ``source`` through what is bridged."""
    found, seen, waiting = [], {source}, [source]
    while waiting:
        name = waiting.pop(0)
        if name in kept:
            found.append(name)
        elif _is_bridged(network.nodes[name]):
            before = [origin for origin in network.predecessors(name) if origin not in seen]
            seen.update(before)
            waiting += before
    return found
