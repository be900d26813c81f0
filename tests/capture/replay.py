"""Capture a model, run its graph, compare with what the model itself does."""

import copy
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fxkd.capture import Captured, Inputs, PointName, capture, split
from fxkd.capture.probe import guard_shape
from fxkd.passes.join import on_modules
from tests.support.oracle import assert_same, energy, seed_everything


def captured(model: nn.Module, *args: Any, points: Iterable[PointName] = (), **kwargs: Any) -> Captured:
    """Capture ``model`` on one call."""
    return capture(model, Inputs(args, kwargs), points=points)


def graph_of(model: nn.Module, *args: Any, points: Iterable[PointName] = (), **kwargs: Any) -> fx.GraphModule:
    """Capture ``model`` on one call and put the graph on the model itself."""
    return runnable(model, captured(model, *args, points=points, **kwargs))


def runnable(model: nn.Module, found: Captured) -> fx.GraphModule:
    return on_modules(found.graph, {"model": model, "model_constants": found.constants})


def targets(found: Captured | fx.GraphModule) -> list[str]:
    """List what the nodes of a graph call, by name, but for what only asks an input for its shape."""
    nodes = [node for node in found.graph.nodes if node.target is not guard_shape]
    return [str(getattr(node.target, "__name__", node.target)) for node in nodes]


def call_graph(graph_module: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
    return graph_module(*split(args, kwargs)[1])


def assert_replays(
    model: nn.Module,
    example: tuple[Any, ...],
    other: tuple[Any, ...] | None = None,
    points: Iterable[PointName] = (),
    rtol: float = 1e-6,
) -> fx.GraphModule:
    """Check that the graph captured on ``example`` does on ``other`` what the model does: values, gradients, state."""
    graph_module = graph_of(model, *example, points=points)
    expected = behaviour(copy.deepcopy(model), None, copy.deepcopy(other or example))
    found = behaviour(model, graph_module, copy.deepcopy(other or example))
    assert_same(expected, found, rtol)
    return graph_module


def behaviour(model: nn.Module, graph_module: fx.GraphModule | None, args: tuple[Any, ...]) -> dict[str, Any]:
    """Run once from one seed; give all that can be compared."""
    seed_everything(11)
    model.zero_grad()
    output = model(*args) if graph_module is None else call_graph(graph_module, *args)
    if any(tensor.requires_grad for tensor in floats(output)):
        energy([tensor for tensor in floats(output) if tensor.requires_grad]).backward()
    return {
        "output": output,
        "requires_grad": [tensor.requires_grad for tensor in floats(output)],
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "inputs": args,
        "drawn": (torch.rand(()), random.random(), float(np.random.rand())),
    }


def floats(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
