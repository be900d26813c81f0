"""After the recording: reads that nobody needs are gone, guards on inputs come first."""

import operator

import torch
from torch import Tensor, fx, nn

from fxkd.capture.captured import PointCall, PointName
from fxkd.capture.guards import guard
from fxkd.capture.tidy import tidy
from tests.capture.replay import graph_of, targets

fx.wrap("guard")


class Before(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = x.relu()
        x.size(0)
        (y.size(1) * 2)
        half = y.size(0) // 2
        guard(half, ">", 0, "a line")
        rows = z.size(0)
        guard(rows, ">", 1, "another line")
        return z + half


class After(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        half = y.size(0) // 2
        guard(half, ">", 0, "a line")
        z = x.relu()
        rows = z.size(0)
        guard(rows, ">", 1, "another line")
        return z + half


def structure(graph: fx.Graph) -> list[tuple[str, str, tuple[str, ...]]]:
    """Give the nodes with their arguments by position: names depend on the order in which nodes were made."""
    order = {node: f"%{place}" for place, node in enumerate(graph.nodes)}
    return [
        (
            node.op,
            str(getattr(node.target, "__name__", node.target)),
            tuple(order.get(arg, repr(arg)) for arg in node.args),
        )
        for node in graph.nodes
    ]


def test_tidy() -> None:
    graph = fx.symbolic_trace(Before()).graph
    tidy(graph)
    assert structure(graph) == structure(fx.symbolic_trace(After()).graph)


def test_nothing_to_do_changes_nothing() -> None:
    graph = fx.symbolic_trace(After()).graph
    before = str(graph)
    tidy(graph)
    assert str(graph) == before


def test_a_read_that_is_a_point_stays() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    read = graph.get_attr("model.weight")
    part = graph.call_function(operator.getitem, (x, 0))
    read.meta["calls"] = (PointCall(PointName("Parameter", "weight"), 0),)
    graph.output(x)
    tidy(graph)
    assert read in graph.nodes
    assert part not in graph.nodes


def test_arithmetic_of_tensors_is_no_read() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.relu() + 1
            return x

    assert "add" in targets(graph_of(Model(), torch.ones(2)))  # whether it may go is for the passes to say
