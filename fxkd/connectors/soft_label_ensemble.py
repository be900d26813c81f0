"""Several teachers as one: the mean of their class distributions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import check_number, check_temperatures, refusal
from fxkd.registry import connector


@connector("SoftLabelEnsemble")
class SoftLabelEnsemble(nn.Module):
    """Make logits of several teachers' logits, whose distribution is the mean of theirs.

    With ``w`` the weights, divided by their sum::

        output = tau * log(sum over teachers of w_i * softmax(logits_i / tau))

    so that ``softmax(output / tau)`` is the mean of the teachers' at that temperature: give the loss the same ``tau``.

    Args:
        tau: The temperature at which the distributions are averaged, above 0.
        weights: One number for each teacher, 0 or more; None weighs all alike.

    Shape:
        A list or tuple of logits (N, C) or (N, C, ...), all of one shape, to one of that shape; classes lie in dim 1.

    Raises:
        SpecError: An option has a value it cannot have, or the logits are not a list of tensors of one shape, one for
            each weight.

    Such an ensemble teaches in "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
    arXiv 2009.08453.

    >>> one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> SoftLabelEnsemble()([one, other]).softmax(1)
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, tau: float = 1.0, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        check_temperatures(self, tau=tau)
        self.tau = tau
        self.weights = None if weights is None else self._shares(weights)

    def _shares(self, weights: Any) -> list[float]:
        if not isinstance(weights, (list, tuple)) or not weights:
            raise refusal(self, f"weights is {weights!r}; give a list of one number for each teacher.")
        for index, weight in enumerate(weights):
            check_number(self, f"weights[{index}]", weight)
        if min(weights) < 0 or sum(weights) == 0:
            raise refusal(self, f"weights is {weights!r}; give numbers of 0 or more, not all 0.")
        return [weight / sum(weights) for weight in weights]

    def forward(self, feature: Sequence[Tensor]) -> Tensor:
        self._check_logits(feature)
        shares = self.weights or [1 / len(feature)] * len(feature)
        terms = [
            F.log_softmax(logits / self.tau, dim=1) + math.log(share)
            for logits, share in zip(feature, shares, strict=True)
            if share > 0
        ]
        return self.tau * torch.logsumexp(torch.stack(terms), dim=0)

    def _check_logits(self, feature: Sequence[Tensor]) -> None:
        if not isinstance(feature, (tuple, list)) or not all(isinstance(logits, Tensor) for logits in feature):
            raise refusal(self, f"feature is a {type(feature).__name__}; it takes a list of the teachers' logits.")
        shapes = [tuple(logits.shape) for logits in feature]
        if not shapes or any(shape != shapes[0] for shape in shapes) or len(shapes[0]) < 2:
            listed = ", ".join(map(str, shapes)) or "none"
            raise refusal(self, f"the shapes of the logits are {listed}; they must be one and the same, (N, C, ...).")
        if self.weights is not None and len(self.weights) != len(shapes):
            raise refusal(self, f"there are {len(self.weights)} weights and the logits of {len(shapes)} teachers.")
