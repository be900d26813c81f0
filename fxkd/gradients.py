"""The gradient of a loss with respect to a value inside a model."""

from typing import Any

import torch
from torch import Tensor

from fxkd.errors import PointError


def tracked(value: Any, where: str) -> Tensor:
    """Give a value with respect to which a gradient can be taken: itself, or a new leaf where none flows to it.

    Raises:
        PointError: It is no tensor of numbers with fractions.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        what = f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise PointError(f"{where}: gives {what}, of which there is no gradient; name a point that gives one tensor")
    return value if value.requires_grad else value.detach().requires_grad_()


def gradient(loss: Tensor, value: Tensor, keep: bool, where: str) -> Tensor:
    """Give the gradient of ``loss`` with respect to ``value``; with ``keep`` gradients flow through it.

    Raises:
        PointError: The call runs without gradients, or the loss does not depend on the value.
    """
    if not loss.requires_grad or not torch.is_grad_enabled():
        raise PointError(f"{where}: there are no gradients in this call; call it with gradients on (no torch.no_grad)")
    found: Tensor | None = torch.autograd.grad(loss, value, create_graph=keep, retain_graph=True, allow_unused=True)[0]
    if found is None:
        raise PointError(f"{where}: the model's own loss does not depend on what the point gives")
    return found if keep else found.detach()
