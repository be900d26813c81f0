"""Graphs of one call in different modes are one where they are equal, or differ in constants that a flag decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from fxkd.capture.guards import guard, guard_form
from fxkd.capture.probe import guard_shape, same_constant

Flags = dict[nn.Module, bool]


def in_training(module: nn.Module, when_training: Any, when_not: Any) -> Any:
    """Choose a constant by the mode of the module whose forward uses it."""
    return when_training if module.training else when_not


@dataclass(frozen=True, slots=True)
class Difference:
    """A constant of one graph and the other constant that stands there in the other graph."""

    node: fx.Node
    place: int
    one: Any
    other: Any


def merge(one: fx.GraphModule, other: fx.GraphModule, before: Sequence[Flags], after: Flags) -> bool:
    """Make ``one`` good for the mode of ``other`` too, if no more than constants tells them apart.

    A constant that differs becomes ``in_training(module, constant, constant)``, with the innermost captured module, if
    that is in train mode for one of the graphs and in eval mode for the other.

    Args:
        one: A joint graph; rewritten if constants differ.
        other: The graph of the same call in another mode.
        before: The flag of each module, for each time that gave ``one``.
        after: The same for ``other``.

    Returns:
        Whether ``one`` is good for both; if not it is as it was.
    """
    found = _differences(one, other)
    if found is None:
        return False
    deciding = [_deciding(one, difference, before, after) for difference in found]
    known = [module for module in deciding if module is not None]
    if len(known) != len(found):
        return False
    for difference, (path, is_training) in zip(found, known, strict=True):
        _choose(one.graph, difference, path, is_training)
    if found:
        one.recompile()
    return True


def _differences(one: fx.GraphModule, other: fx.GraphModule) -> list[Difference] | None:
    """List the constants that differ; None if the graphs differ in more."""
    if len(one.graph.nodes) != len(other.graph.nodes):
        return None
    same: dict[Any, fx.Node] = {}
    found: list[Difference] = []
    for left, right in zip(one.graph.nodes, other.graph.nodes, strict=True):
        (a, form), (b, other_form) = _taken_apart(left), _taken_apart(right)
        if not _same_call(one, other, left, right) or form != other_form:
            return None
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            if isinstance(x, fx.Node) or isinstance(y, fx.Node):
                if same.get(y) is not x:
                    return None
            elif not same_constant(x, y):
                found.append(Difference(left, place, x, y))
        same[right] = left
    return None if any(difference.node.target in (guard, guard_form, guard_shape) for difference in found) else found


def _taken_apart(node: fx.Node) -> tuple[list[Any], Any]:
    """Give the leaves of a node's arguments, and how they nest."""
    leaves: list[Any] = []
    form = map_aggregate((node.args, node.kwargs), leaves.append)
    return leaves, form


def _same_call(one: fx.GraphModule, other: fx.GraphModule, left: fx.Node, right: fx.Node) -> bool:
    if (left.op, left.target) != (right.op, right.target):
        return False
    if left.op != "get_attr":
        return True
    return _reach(one, str(left.target)) is _reach(other, str(right.target))


def _reach(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name, None)
    return root


def _deciding(
    one: fx.GraphModule, difference: Difference, before: Sequence[Flags], after: Flags
) -> tuple[str, bool] | None:
    """Give the module whose mode decides, by path, and its mode in ``one``; None where there is no such module."""
    meta = difference.node.meta
    path = ".".join(filter(None, (meta.get("side"), meta.get("inside"))))
    module = _reach(one, path) if meta.get("side") else None
    if not isinstance(module, nn.Module) or module not in after:
        return None
    is_training = not after[module]
    return (path, is_training) if all(flags[module] is is_training for flags in before) else None


def _choose(graph: fx.Graph, difference: Difference, path: str, is_training: bool) -> None:
    node, constants = difference.node, (difference.one, difference.other)
    with graph.inserting_before(node):
        module = graph.get_attr(path)
        chosen = graph.call_function(in_training, (module, *(constants if is_training else constants[::-1])))
    for new in (module, chosen):
        new.meta.update(side=node.meta["side"], inside=node.meta["inside"], storages=frozenset())
    places = iter(range(len(_taken_apart(node)[0])))
    put = map_aggregate((node.args, node.kwargs), lambda leaf: chosen if next(places) == difference.place else leaf)
    node.args, node.kwargs = put
