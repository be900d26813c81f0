"""Small joint graphs: two modules captured and joined, as ``prepare`` does it, without a spec."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxkd.capture import Captured, Inputs, Layout, PointName, capture
from fxkd.capture.probe import guard_shape
from fxkd.passes.join import Side, join


def outputs(path: str) -> PointName:
    return PointName("ModuleOutputs", path)


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def joined(
    student: nn.Module,
    teacher: nn.Module | None = None,
    *,
    inputs: Sequence[Any] = (),
    points: Iterable[PointName] = (),
    whole: Iterable[PointName] = (),
    extra: Sequence[str] = (),
) -> fx.GraphModule:
    """Capture and join; points are looked for on both sides."""
    given = Inputs(tuple(inputs) or (batch(),))
    layout, points, whole = Layout.of(given, student), tuple(points), tuple(whole)
    modules: dict[str, nn.Module] = {"student": student}
    found: list[Captured] = []
    if teacher is not None:
        modules["teacher"] = teacher
        found.append(capture(teacher, given, name="teacher", points=points, grad=False, layout=layout))
    found.append(capture(student, given, name="student", points=points, whole=whole, layout=layout))
    modules |= {f"{one.name}_constants": one.constants for one in found}
    sides = [Side(name=one.name, graph=one.graph, grad=one.name == "student") for one in found]
    return join(sides, modules, extra)


def read(graph: fx.Graph) -> list[fx.Node]:
    """List the nodes but for what only asks an input for its shape: how wide an example is does not matter here."""
    return [node for node in graph.nodes if node.target is not guard_shape]


def shape_of(graph: fx.Graph, side: str | None = None) -> list[str]:
    """List what the nodes call, of one side or of all."""
    nodes = [node for node in read(graph) if side is None or node.meta.get("side") == side]
    return [str(getattr(node.target, "__name__", node.target)) for node in nodes]


def structure(graph: fx.Graph) -> list[tuple[str, str, tuple[Any, ...], dict[str, Any]]]:
    """Give each node without its name: operation, target, arguments as positions."""
    order = {node: f"%{place}" for place, node in enumerate(read(graph))}
    return [
        (
            node.op,
            str(getattr(node.target, "__name__", node.target)),
            fx.node.map_arg(node.args, order.__getitem__),
            fx.node.map_arg(node.kwargs, order.__getitem__),
        )
        for node in order
    ]
