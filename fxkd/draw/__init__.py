"""Show a distiller or a model as a picture: the classical diagram of teacher and student, drawn from the real graph."""

from pathlib import Path
from typing import Any

import graphviz
from torch import nn

from fxkd.draw.fold import fold
from fxkd.draw.network import to_networkx as to_networkx
from fxkd.draw.picture import picture
from fxkd.draw.render import check_suffix, write


def draw(source: nn.Module, path: str | Path | None = None, *, example_inputs: Any = None) -> graphviz.Digraph:
    """Draw a distiller (its joint graph, with what was pruned) or any model (its captured graph).

    The student is blue, the teacher brown; records, deliveries, connectors and losses are marked, as the legend says;
    sizes, guards and other plumbing is folded away.

    Args:
        source: A distiller, a GraphModule, or any other module together with ``example_inputs``.
        path: Where to write it: ``.svg``, ``.png``, ``.pdf`` or ``.dot``.
        example_inputs: Arguments with which a model is captured, as ``prepare`` takes them.

    Returns:
        The graph as the graphviz package holds it; ``.source`` is its DOT text, the same at every call.

    Raises:
        DrawError: The suffix is unknown, or no program is there that writes such a file.
        CaptureError: There is no graph yet, or the model cannot be one.

    >>> import torch
    >>> graph = draw(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), example_inputs=torch.zeros(3, 4))
    >>> "Linear · 3×2" in graph.source
    True
    """
    target = None if path is None else Path(path)
    if target is not None:
        check_suffix(target)
    graph = picture(fold(to_networkx(source, example_inputs=example_inputs)))
    if target is not None:
        write(graph, target)
    return graph
