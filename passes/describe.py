"""A graph as plain data: nodes and edges with names, kinds and shapes, to be kept, drawn and counted."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import networkx as nx
import torch
from torch import fx
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast

from fxkd.capture.captured import PointCall, bundle, call_inputs
from fxkd.capture.structure import tensors
from fxkd.capture.tidy import ARITHMETIC, SIZES
from fxkd.capture.whole import call_on_values
from fxkd.gradients import gradient, tracked
from fxkd.passes.insert_deliveries import deliver
from fxkd.passes.insert_losses import add_losses, mean_of
from fxkd.passes.insert_records import record
from fxkd.passes.protect_records import clone
from fxkd.records import module_inputs

OPERATIONS = {
    "placeholder": "input",
    "output": "output",
    "get_attr": "attribute",
    "call_module": "module",
    "call_method": "method",
    "call_function": "function",
}
FUNCTIONS: dict[Any, str] = {
    record: "record",
    deliver: "deliver",
    call_on_values: "module",
    clone: "clone",
    torch.clone: "clone",
    gradient: "gradient",
    tracked: "clone",
    add_losses: "total",
    mean_of: "mean",
    bundle: "bundle",
    call_inputs: "bundle",
    module_inputs: "bundle",
    torch.is_grad_enabled: "mode",
    torch._C._set_grad_enabled: "mode",
    _enter_autocast: "mode",
    _exit_autocast: "mode",
}
GUARDS = ("fxkd.capture.tape.guard", "fxkd.capture.probe.guard_shape")  # and guard_form
HOLDERS = {"connectors", "losses"}
MOST_SHAPES = 3


def describe(
    graph_module: fx.GraphModule, nodes: Iterable[fx.Node] | None = None, *, pruned: bool = False
) -> "nx.MultiDiGraph[str]":
    """Say of each node what it is, in words and numbers alone; edges go from a value to who takes it.

    Args:
        graph_module: Where the nodes are.
        nodes: Those to describe, with the edges into them; by default all.
        pruned: Whether they are about to be removed.

    >>> from torch import nn
    >>> network = describe(fx.symbolic_trace(nn.Sequential(nn.Linear(2, 1))))
    >>> network.nodes["_0"]["kind"], network.nodes["_0"]["class"], list(network.edges(data="argument"))
    ('module', 'Linear', [('input_1', '_0', '0'), ('_0', 'output', '0')])
    """
    network: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    sizes = _sizes(graph_module.graph)
    for node in graph_module.graph.nodes if nodes is None else nodes:
        kind = "number" if node in sizes else _kind(node)
        network.add_node(node.name, **_attributes(node, kind, graph_module), pruned=pruned)
        for source, argument in _arguments(node):
            network.add_edge(source.name, node.name, argument=argument)
    return network


def _attributes(node: fx.Node, kind: str, graph_module: fx.GraphModule) -> dict[str, Any]:
    held = tensors(node.meta.get("val"))
    return {
        "label": _label(node, kind),
        "op": node.op,
        "target": _module_path(node) if kind == "module" else _target(node.target),
        "class": type(graph_module.get_submodule(_module_path(node))).__name__ if kind == "module" else "",
        "side": _side(node),
        "kind": kind,
        "shape": _listed([str(tuple(tensor.shape)) for tensor in held]),
        "dtype": _listed(list(dict.fromkeys(str(tensor.dtype).removeprefix("torch.") for tensor in held))),
        "points": [_point(call) for call in node.meta.get("calls", ())],
    }


def _module_path(node: fx.Node) -> str:
    """Give the path of the module that a node calls."""
    return str(node.target if node.op == "call_module" else node.args[0].target)  # type: ignore[union-attr]


def _sizes(graph: fx.Graph) -> set[fx.Node]:
    """Find the nodes that ask for a size, or reckon with sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        asked = node.target in SIZES if node.op == "call_method" else _asks(node)
        reckoned = node.target in ARITHMETIC or node.target is operator.getitem
        if asked or (reckoned and node.all_input_nodes and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def _asks(node: fx.Node) -> bool:
    return node.target is len or (node.target is getattr and node.args[1] == "shape")


def _kind(node: fx.Node) -> str:
    """Say what a node does: its operation, or what fxkd made it for."""
    if node.op != "call_function":
        return OPERATIONS[node.op]
    if node.target is getattr or (node.target is operator.getitem and not _is_indexing(node)):
        return "pick"
    if _target(node.target).startswith(GUARDS):
        return "guard"
    return FUNCTIONS.get(node.target, "function")


def _is_indexing(node: fx.Node) -> bool:
    """Tell whether ``getitem`` cuts something out of a tensor, and does not just take one of several values."""
    return isinstance(node.all_input_nodes[0].meta.get("val"), torch.Tensor)


def _side(node: fx.Node) -> str:
    if node.op in ("placeholder", "output"):
        return OPERATIONS[node.op]
    return str(node.meta.get("part") or node.meta.get("side") or "model")


def _label(node: fx.Node, kind: str) -> str:
    if kind in ("record", "deliver"):
        name, index = str(node.args[1]), node.args[2]
        return (name.partition(".")[2] if kind == "record" else name) + (f" call {index}" if index else "")
    if kind in ("module", "attribute"):
        place = _module_path(node) if kind == "module" else str(node.target)
        head, _, path = place.partition(".")
        return path if path and head in HOLDERS | {node.meta.get("side")} else place
    if kind in ("total", "input", "output"):
        return node.name
    return _of_class(node.meta["function"]) if "function" in node.meta else short_name(node.target)


def _of_class(path: str) -> str:
    """Keep of a path the function, and the class before it."""
    *_, owner, name = ["", *path.split(".")]
    return f"{owner}.{name}" if owner[:1].isupper() else name


def short_name(target: Callable[..., Any] | str) -> str:
    """Name a function as a reader knows it: ``add`` for ``operator.__add__``, ``Square.apply``, ``.T``.

    >>> short_name(torch.Tensor.__add__), short_name(torch.relu), short_name(torch.Tensor.T.__get__)
    ('add', 'relu', '.T')
    """
    if isinstance(target, str):
        return target
    name, owner = getattr(target, "__name__", type(target).__name__), getattr(target, "__self__", None)
    if name == "__get__":
        return f".{getattr(owner, '__name__', '')}"
    if isinstance(owner, type):
        return f"{owner.__name__}.{name}"
    return name.strip("_") if name.startswith("__") else name


def _target(target: Callable[..., Any] | str) -> str:
    if isinstance(target, str):
        return target
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", short_name(target))
    return f"{module.removeprefix('_')}.{name}" if module else name


def _point(call: PointCall) -> str:
    return f"{call.point.kind} {call.point.path}" + (f" call {call.index}" if call.index else "")


def _listed(words: list[str]) -> str:
    more = [f"{len(words) - MOST_SHAPES} more"] if len(words) > MOST_SHAPES else []
    return ", ".join(words[:MOST_SHAPES] + more)


def _arguments(node: fx.Node) -> Iterator[tuple[fx.Node, str]]:
    """Yield every node among the arguments with its place: ``0``, ``0.2``, ``preds_S``."""
    yield from _places(node.args, ())
    yield from _places(node.kwargs, ())


def _places(value: Any, where: tuple[str, ...]) -> Iterator[tuple[fx.Node, str]]:
    if isinstance(value, fx.Node):
        yield value, ".".join(where)
    elif isinstance(value, slice):
        yield from _places({"start": value.start, "stop": value.stop, "step": value.step}, where)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _places(part, (*where, str(key)))
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from _places(part, (*where, str(index)))
