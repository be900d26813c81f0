"""The weight of a loss whose class takes none."""

from typing import Any

from torch import Tensor, nn


class Weighted(nn.Module):
    """Multiply what a loss gives by ``loss_weight``.

    Args:
        loss: A loss that gives a tensor, or a list of tensors.
        loss_weight: The factor.

    >>> import torch
    >>> Weighted(nn.L1Loss(), 3.0)(torch.ones(2), torch.zeros(2))
    tensor(3.)
    """

    def __init__(self, loss: nn.Module, loss_weight: float) -> None:
        super().__init__()
        self.loss, self.loss_weight = loss, loss_weight

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        value = self.loss(*args, **kwargs)
        if isinstance(value, (list, tuple)):
            return [part * self.loss_weight for part in value]
        weighted: Tensor = value * self.loss_weight
        return weighted

    def step(self) -> None:
        """Pass on that an epoch is over."""
        advance = getattr(self.loss, "step", None)
        if callable(advance):
            advance()
