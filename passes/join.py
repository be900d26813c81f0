"""Put the graphs of teachers and student into one, on the real modules."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fxkd.passes.insert_deliveries import rename_memory
from fxkd.passes.run import lint


@dataclass(frozen=True, slots=True)
class Side:
    """One model of the joint graph.

    Args:
        name: ``"student"`` or a teacher's name; the first part of its targets.
        graph: Its captured graph.
        grad: Whether gradients flow; without, the side runs with the grad mode off, and what was on is put back.
    """

    name: str
    graph: fx.Graph
    grad: bool


def join(
    sides: Sequence[Side],
    modules: Mapping[str, nn.Module],
    inputs: Sequence[str] = (),
    others: Collection[str] = (),
) -> fx.GraphModule:
    """Join captured graphs, in order, into one GraphModule that returns what the student returns.

    Placeholders of the same name become one. The module hangs on the objects in ``modules`` themselves, not on copies
    of them, so what is done to them later (loading weights, moving, replacing a module that is one node) is seen.

    Args:
        sides: The models in running order; the one that is returned is ``student``, else the last.
        modules: What the targets start with -> the object.
        inputs: Further placeholders, for values that no model takes.
        others: Names of further sides whose results are returned too.
    """
    graph = fx.Graph()
    names = dict.fromkeys([str(node.target) for side in sides for node in _placeholders(side.graph)] + list(inputs))
    placeholders = {name: graph.placeholder(name) for name in names}
    results = {side.name: _copy(graph, side, placeholders) for side in sides}
    values = {side.name: _output(side.graph).meta.get("val") for side in sides}
    last = "student" if "student" in results else sides[-1].name
    value = _returned(values, last, others)
    graph.output(_returned(results, last, others)).meta.update(val=value, returns=last)
    return on_modules(graph, modules)


def _returned(of_sides: Mapping[str, Any], last: str, others: Collection[str]) -> dict[str, Any]:
    """Choose among what belongs to the sides: the student's, and the others' if they are asked for."""
    chosen = {"output": of_sides[last]}
    return chosen | {"others": {name: of_sides[name] for name in others}} if others else chosen


def on_modules(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Make a GraphModule of ``graph`` whose attributes are the objects in ``modules``."""
    root = nn.Module()
    for name, module in modules.items():
        setattr(root, name, module)
    joint = fx.GraphModule(root, graph, class_name="JointGraph")
    for name, module in modules.items():
        setattr(joint, name, module)
    lint(joint)
    return joint


def _copy(graph: fx.Graph, side: Side, placeholders: dict[str, fx.Node]) -> Any:
    """Copy the nodes of one side; give what it returns, in terms of the new nodes."""
    previous = None if side.grad else graph.call_function(torch.is_grad_enabled)
    if previous is not None:
        graph.call_function(torch._C._set_grad_enabled, (False,))
    new: dict[fx.Node, fx.Node] = {}
    for node in side.graph.nodes:
        if node.op == "placeholder":
            new[node] = placeholders[str(node.target)]
        elif node.op != "output":
            new[node] = _copy_node(graph, node, side.name, new)
    if previous is not None:
        graph.call_function(torch._C._set_grad_enabled, (previous,))
    for node in _placeholders(side.graph):
        _share_memory(graph, side.name, node, new[node])
    return fx.node.map_arg(_output(side.graph).args[0], new.__getitem__)


def _copy_node(graph: fx.Graph, node: fx.Node, side: str, new: Mapping[fx.Node, fx.Node]) -> fx.Node:
    args = fx.node.map_arg(node.args, new.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, new.__getitem__)
    name = node.name if node.name.startswith(side) else f"{side}_{node.name}"
    copy = graph.create_node(node.op, node.target, args, kwargs, name=name)
    copy.meta.update(node.meta, side=side)
    return copy


def _share_memory(graph: fx.Graph, side: str, old: fx.Node, new: fx.Node) -> None:
    """Say that an input is the same memory in every model."""
    if "storages" in new.meta:
        rename_memory(graph, side, old.meta["storages"], new.meta["storages"])
    else:
        new.meta.update(old.meta)


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _output(graph: fx.Graph) -> fx.Node:
    return graph.output_node()
