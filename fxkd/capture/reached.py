"""Where gradients flow back to from what a function gave."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def reached(given: Sequence[Tensor], made: Sequence[Tensor]) -> tuple[tuple[int, ...], bool]:
    """Tell which of the tensors that a function was given get gradients from those that it made.

    Args:
        given: What it was given.
        made: What it made.

    Returns:
        Their places, and whether tensors that it was not given get gradients too.

    >>> import torch
    >>> x, w, other = (torch.ones(2, requires_grad=True) for _ in range(3))
    >>> reached([x, w, other], [(x * 2) @ w]), reached([x], [x * w]), reached([x], [x.detach()])
    (((0, 1), False), ((0,), True), ((), False))
    """
    places: dict[Any, list[int]] = {}
    for index, tensor in enumerate(given):
        if tensor.requires_grad:
            places.setdefault(_origin(tensor), []).append(index)
    waiting = [_origin(tensor) for tensor in made if tensor.requires_grad]
    found, seen, is_foreign = set[int](), set[Any](), False
    while waiting:
        origin = waiting.pop()
        if origin in places:
            found.update(places[origin])
        elif isinstance(origin, int):
            is_foreign = True
        elif origin[0] not in seen:
            seen.add(origin[0])
            waiting += [_of_edge(*edge) for edge in origin[0].next_functions if edge[0] is not None]
    return tuple(sorted(found)), is_foreign


def _origin(tensor: Tensor) -> Any:
    """Say what made a tensor: a step and which of its results, or the tensor itself."""
    return id(tensor) if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def _of_edge(step: Any, index: int) -> Any:
    """Say the same of an edge of the graph of gradients, which ends at tensors that nothing made."""
    return id(step.variable) if type(step).__name__ == "AccumulateGrad" else (step, index)
