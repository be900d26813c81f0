"""What runs on values alone gives tensors that share memory: in a compiled graph each has memory of its own."""

import operator
from collections import Counter

import torch
from torch import fx

from fxkd.errors import CaptureError


def refuse_shared_writes(graph: fx.Graph, held: frozenset[int]) -> None:
    """Let a compiled graph refuse what would be wrong there: a later write to memory that a result shares.

    Args:
        graph: What was recorded.
        held: The memory of the model's own tensors.
    """
    for node in [node for node in graph.nodes if node.meta.get("by_values")]:
        memory = node.meta.get("storages", frozenset())
        counts = Counter(one for part in _parts(node) for one in part.meta.get("storages", frozenset()))
        shared = frozenset(one for one, count in counts.items() if count > 1) | memory & (held | _given(node))
        if shared & _written_after(node):
            with graph.inserting_after(node):
                graph.call_function(refuse_compiled, (node.meta["by_values"],)).meta["effect"] = True


def refuse_compiled(path: str) -> None:
    """Refuse a compiled graph in which a write to one tensor would not be seen in another."""
    if torch.compiler.is_compiling():
        raise CaptureError(
            f"what {path!r} gives shares memory that the forward writes to, which one operator of a compiled graph "
            "cannot give: let it give a copy (clone), or use compile=False"
        )


def _parts(node: fx.Node) -> list[fx.Node]:
    """List the nodes of the tensors in a result, each tensor once."""
    reached = [user for user in node.users if user.target in (operator.getitem, getattr)]
    if isinstance(node.meta.get("val"), torch.Tensor):
        return [node]
    return list({id(part.meta["val"]): part for one in reached for part in _parts(one) if "val" in part.meta}.values())


def _given(node: fx.Node) -> frozenset[int]:
    return frozenset().union(*(one.meta.get("storages", frozenset()) for one in node.all_input_nodes))


def _written_after(node: fx.Node) -> frozenset[int]:
    written: frozenset[int] = frozenset()
    while node.op != "output":
        node = node.next
        written |= node.meta.get("mutates", frozenset())
    return written
