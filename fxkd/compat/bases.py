"""Bases of losses, connectors and heads that are written as ``forward_train``."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from fxkd.errors import SpecError

FORWARD = "forward_train"  # what a class is to compute in training


class BaseConnector(nn.Module):
    """Base of connectors that are written as ``forward_train(feature)``.

    >>> class Double(BaseConnector):
    ...     def forward_train(self, feature):
    ...         return 2 * feature
    >>> import torch
    >>> Double()(torch.ones(2))
    tensor([2., 2.])
    """

    def __init__(self, init_cfg: None = None) -> None:
        super().__init__()
        if init_cfg is not None:
            raise SpecError([f"{type(self).__name__}: init_cfg is {init_cfg!r}; change the weights after building"])

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``forward`` be what the class computes in training."""
        super().__init_subclass__(**kwargs)
        if "forward_train" in vars(cls) and "forward" not in vars(cls):
            call_forward_train(cls)


class BaseLoss(nn.Module):
    """Base of losses that are written as ``forward_train(s_pred, t_pred)``; ``loss_weight`` is applied to their value.

    >>> class Distance(BaseLoss):
    ...     def forward_train(self, s_pred, t_pred, **kwargs):
    ...         return (s_pred - t_pred).abs().mean()
    >>> import torch
    >>> Distance(loss_weight=3.0)(torch.ones(2), torch.zeros(2))
    tensor(3.)
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``forward`` be what the class computes in training, times its weight."""
        super().__init_subclass__(**kwargs)
        if "forward_train" in vars(cls) and "forward" not in vars(cls):
            call_forward_train(cls, weighted=True)


class BaseDistillationHead(BaseLoss):
    """Base of heads, which own losses and connectors: to fxkd a head is a loss of the two features it is given."""


def call_forward_train(cls: type[nn.Module], weighted: bool = False) -> None:
    """Give ``cls`` a ``forward`` that calls its ``forward_train`` and takes the same arguments."""
    forward_train: Callable[..., Any] = getattr(cls, FORWARD)

    @functools.wraps(forward_train)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        value = self.forward_train(*args, **kwargs)
        return value * self.loss_weight if weighted else value

    cls.forward = forward
