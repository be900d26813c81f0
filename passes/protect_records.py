"""Copy a record whose memory is written to later, so that it holds the value at its point."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.utils import _pytree as pytree

from fxkd.passes.insert_records import record


def clone(value: Any) -> Any:
    """Copy every tensor inside ``value``; gradients flow through."""
    return pytree.tree_map_only(Tensor, Tensor.clone, value)


@dataclass(frozen=True)
class ProtectRecords(PassBase):
    """Put a ``clone`` under each record that a later in-place operation would change, and no other.

    Uses ``node.meta["storages"]`` and ``node.meta["mutates"]``, which the capture measured.
    """

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Clone what is written to later."""
        graph, exposed = graph_module.graph, []
        written: set[int] = set()
        for node in reversed(graph.nodes):
            if node.target is record and written & node.meta["storages"]:
                exposed.append(node)
            written |= node.meta.get("mutates", frozenset())
        for node in exposed:
            _clone_under(graph, node)
        return PassResult(graph_module, modified=bool(exposed))


def _clone_under(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        copy = graph.call_function(clone, (node.args[0],))
    node.meta["storages"] = frozenset()
    copy.meta.update(node.meta)
    node.update_arg(0, copy)
