"""What there is to draw, as a networkx graph: kept and pruned nodes, from a distiller or from any model."""

from typing import Any

import networkx as nx
from torch import fx, nn

from fxkd.capture import Inputs, capture
from fxkd.distiller import Distiller
from fxkd.errors import CaptureError
from fxkd.passes.describe import describe
from fxkd.passes.join import on_modules


def to_networkx(source: nn.Module, *, example_inputs: Any = None) -> "nx.MultiDiGraph[str]":
    """Give a graph as plain data: for a distiller the joint graph of the mode it is in, with what was pruned.

    A node's name is that of the fx node. Its attributes:

    - ``label``: a short name for readers; ``op`` and ``target``: as in the fx graph, in words.
    - ``side``: ``"student"``, ``"teacher"``, ``"connector"``, ``"loss"``, ``"input"``, ``"output"``; ``"model"`` for
      what belongs to none.
    - ``kind``: ``"module"`` (with its ``class``), ``"function"``, ``"method"``, ``"attribute"``, ``"input"``,
      ``"output"``; of fxkd's own ``"record"``, ``"deliver"``, ``"clone"``, ``"guard"``, ``"mean"``, ``"total"``; and
      what only serves others: ``"pick"`` and ``"bundle"`` (parts of a value), ``"number"`` (sizes), ``"mode"``
      (gradients and autocast on and off).
    - ``shape``, ``dtype``: of the tensors it gave for the example inputs, if known.
    - ``points``: the named points it holds. ``pruned``: whether it was removed.

    An edge goes from a value to who takes it; ``argument`` is the place there: ``"0"``, ``"preds_S"``.

    Args:
        source: A distiller, a GraphModule, or any other module, which is captured.
        example_inputs: Arguments for a module that must be captured: as ``prepare`` takes them.

    Raises:
        CaptureError: There is no graph yet, or the model cannot be one.

    >>> import torch
    >>> network = to_networkx(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), example_inputs=torch.zeros(3, 4))
    >>> [(data["label"], data["class"], data["shape"]) for _, data in network.nodes(data=True) if data["class"]]
    [('0', 'Linear', '(3, 2)'), ('1', 'ReLU', '(3, 2)')]
    """
    graph_module = graph_of(source, example_inputs)
    kept, pruned = describe(graph_module), graph_module.meta.get("pruned", nx.MultiDiGraph())
    network: nx.MultiDiGraph[str] = nx.MultiDiGraph(nx.compose(kept, pruned))
    gone = [name for name in pruned if name not in kept and "kind" not in pruned.nodes[name]]  # a later pass took them
    network.remove_nodes_from(gone)
    sides = dict.fromkeys(data["side"] for _, data in network.nodes(data=True))
    network.graph["models"] = {
        side: type(held).__name__ for side in sides if (held := getattr(graph_module, side, None)) is not None
    }
    return network


def graph_of(source: nn.Module, example_inputs: Any) -> fx.GraphModule:
    """Find the graph of ``source``, or capture one."""
    if isinstance(source, Distiller):
        return _joint_graph(source, example_inputs)
    if example_inputs is not None:
        captured = capture(source, Inputs.of(example_inputs), name="model")
        for node in captured.graph.nodes:
            node.meta["side"] = captured.name
        return on_modules(captured.graph, {"model": source, "model_constants": captured.constants})
    if isinstance(source, fx.GraphModule):
        return source
    raise CaptureError(
        f"a {type(source).__name__} is no graph yet: give example_inputs=, a tuple of arguments or a dict of keywords "
        "with which the model is run once, on tensors without values"
    )


def _joint_graph(distiller: Distiller, example_inputs: Any) -> fx.GraphModule:
    if distiller.options.backend == "eager":
        raise CaptureError(
            "this distiller was prepared with backend='eager', which runs the models as they are, so there is no joint "
            "graph: prepare it with backend='graph', or draw one model (distiller.student) with example_inputs="
        )
    if example_inputs is None:
        return distiller.graph_module
    try:
        return distiller.graph_module
    except CaptureError:
        distiller.capture(Inputs.of(example_inputs))
        return distiller.graph_module
