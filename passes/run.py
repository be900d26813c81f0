"""Apply passes one after another; after each the graph is checked and compiled to Python, and somebody may look."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase

OnPass = Callable[[PassBase, fx.GraphModule, bool], Any]


def run(graph_module: fx.GraphModule, passes: Iterable[PassBase], on_pass: OnPass | None = None) -> fx.GraphModule:
    """Apply ``passes`` in order; ``on_pass(step, graph_module, modified)`` sees each result.

    Raises:
        Exception: Whatever a pass raises, with a note that names the pass.

    >>> from torch import nn
    >>> from fxkd.passes import Prune
    >>> steps = []
    >>> traced = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    >>> rewritten = run(traced, [Prune()], on_pass=lambda step, graph_module, modified: steps.append(str(step)))
    >>> steps
    ["Prune(stateful=('student',))"]
    """
    for step in passes:
        try:
            graph_module, modified = step(graph_module)  # type: ignore[misc]
            if modified:
                lint(graph_module)
                graph_module.recompile()
        except Exception as error:
            error.add_note(f"while running {step}")
            raise
        if on_pass is not None:
            on_pass(step, graph_module, modified)
    return graph_module


def lint(graph_module: fx.GraphModule) -> None:
    """Check the graph; that it reads objects which are no tensors is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not reference an nn.Module, nn.Parameter, or buffer")
        graph_module.graph.lint()
