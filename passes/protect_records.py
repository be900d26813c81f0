"""Copy a record whose memory is written to later, so that it holds the value at its point."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.passes.insert_deliveries import cut, deliver, given_at
from fxkd.passes.insert_records import record
from fxkd.records import cloned


def clone(value: Any) -> Any:
    """Copy every tensor inside ``value``; gradients flow through."""
    return cloned(value)


@dataclass(frozen=True)
class ProtectRecords(PassBase):
    """Put a ``clone`` under each record and delivery that a later in-place operation would change, and no other.

    Uses ``node.meta["storages"]`` and ``node.meta["mutates"]``, which the capture measured.

    Args:
        frozen: Sides that run without gradients: where they record or hand over an input of the call, or a value that
            was handed to them, as it is, no gradient flows back by that way, as by no other way through them.
    """

    frozen: Collection[str] = ()

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Clone what is written to later."""
        graph, exposed = graph_module.graph, []
        open_ways = self._ways_out(graph)
        written: set[int] = set()
        for node in reversed(graph.nodes):
            if node.target is record and written & node.meta["storages"]:
                exposed.append(node)
            written |= node.meta.get("mutates", frozenset())
        for node in exposed:
            _clone_under(graph, node)
        delivered = [node for node in graph.nodes if node.target is deliver]
        delivered = [node for node in delivered if _is_written_between(given_at(graph, node), node) or _is_torn(node)]
        for node in delivered:
            _clone_behind(graph, node)
        for node in open_ways:
            cut(graph, node)
        return PassResult(graph_module, modified=bool(exposed or delivered or open_ways))

    def _ways_out(self, graph: fx.Graph) -> list[fx.Node]:
        """List what a frozen side records or hands over as it is of inputs, or of what it was given."""
        held = set[int]()
        for node in graph.nodes:
            is_given = node.target is deliver and node.meta["side"] in self.frozen
            if is_given or node.op == "placeholder":
                held |= node.meta.get("storages", frozenset())
        return [
            node for node in graph.nodes if self._is_by_frozen(node) and held & node.meta.get("storages", frozenset())
        ]

    def _is_by_frozen(self, node: fx.Node) -> bool:
        """Tell whether a frozen side records or hands over the value of a node."""
        if not self.frozen:
            return False
        if node.target is deliver:
            return node.meta["side"] not in self.frozen
        return node.target is record and str(node.args[1]).partition(".")[0] in self.frozen


def _is_written_between(given: fx.Node, reader: fx.Node) -> bool:
    """Tell whether what ``reader`` takes is written to behind ``given`` before ``reader`` has it."""
    source: Any = reader.args[0]
    memory, node = source.meta.get("storages", frozenset()), given.next
    while node is not reader:
        if memory & node.meta.get("mutates", frozenset()):
            return True
        node = node.next
    return False


def _is_torn(delivered: fx.Node) -> bool:
    """Tell whether the taker writes to what it was given, or others write to it while the taker reads."""
    source: Any = delivered.args[0]
    memory, node = source.meta.get("storages", frozenset()), delivered.next
    own, written_by = {delivered}, set[bool]()
    while node.op != "root":
        inputs = node.all_input_nodes
        readers = {one in own for one in inputs if memory & one.meta.get("storages", frozenset())}
        if (readers and written_by - readers) or (len(readers) == 2 and written_by):
            return True
        if any(one in own for one in inputs):
            own.add(node)
        if memory & node.meta.get("mutates", frozenset()):
            written_by |= readers
        node = node.next
    return bool(written_by)  # alone too: to a view made without gradients torch lets nobody write with them


def _clone_behind(graph: fx.Graph, node: fx.Node) -> None:
    """Let a delivery give a copy that is made where its value is given."""
    source: Any = node.args[0]
    with graph.inserting_after(given_at(graph, node)):
        copy = graph.call_function(clone, (source,))
    copy.meta.update(source.meta, storages=frozenset(), mutates=frozenset(), calls=())
    node.update_arg(0, copy)


def _clone_under(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        copy = graph.call_function(clone, (node.args[0],))
    node.meta["storages"] = frozenset()
    copy.meta.update(node.meta)
    node.update_arg(0, copy)
