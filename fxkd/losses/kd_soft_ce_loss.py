"""Cross entropy with a softened teacher: the gradient of a divergence, without the teacher's entropy in the value."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import (
    check_choice,
    check_flags,
    check_numbers,
    check_same_shape,
    check_temperature,
    check_tensor,
    refusal,
)
from fxkd.losses._values import average, full
from fxkd.registry import loss

_REDUCTIONS = ("none", "mean", "sum")


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ``-sum(softmax(teacher) * log softmax(student))`` over the last axis, with 0 log 0 = 0."""
    probs = F.softmax(teacher, dim=-1)
    return -(probs * F.log_softmax(student, dim=-1).masked_fill(probs == 0, 0.0)).sum(dim=-1)


@loss("KDSoftCELoss")
class KDSoftCELoss(nn.Module):
    """Train the student on the teacher's softened probabilities as labels.

    With ``c = -sum(softmax(preds_T / tau) * log softmax(preds_S / tau))`` over the last axis::

        loss = loss_weight * tau^2 * reduce(weight * c)

    Args:
        tau: The temperature, above 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        mult_tem_square: Whether ``tau^2`` is there.
        loss_weight: Factor of the result.

    Shape:
        ``preds_S`` and ``preds_T`` are logits (N, C), or (N, ..., C): classes lie in the last axis. ``weight`` has one
        number a sample, (N,) (or (N, ...)). ``avg_factor``, a number or a 0-d tensor, divides the sum in place of the
        count with ``"mean"``; 0 counts as 1. With ``"none"`` it does nothing. ``reduction_override`` goes before
        ``reduction``. Gradient reaches both logits.

    Raises:
        SpecError: An option has a value it cannot have, the shapes differ, ``weight`` is not one number a sample, or
            ``avg_factor`` comes with ``"sum"``.

    From "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> KDSoftCELoss()(student, teacher)
    tensor(1.9828)
    >>> KDSoftCELoss()(student, teacher, weight=torch.tensor([0.5]), avg_factor=2)
    tensor(0.4957)
    """

    kind: ClassVar[str] = "response"

    def __init__(
        self, tau: float = 1.0, reduction: str = "mean", mult_tem_square: bool = True, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_choice(self, "reduction", reduction, _REDUCTIONS)
        check_flags(self, mult_tem_square=mult_tem_square)
        check_numbers(self, loss_weight=loss_weight)
        self.tau = tau
        self.reduction = reduction
        self.mult_tem_square = mult_tem_square
        self.loss_weight = loss_weight

    def forward(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        check_tensor(self, preds_S=preds_S)
        check_choice(self, "reduction_override", reduction_override, (None, *_REDUCTIONS))
        reduction = reduction_override or self.reduction
        costs = soft_cross_entropy(full(preds_S) / self.tau, full(preds_T) / self.tau)
        if weight is not None:
            self._check_weight(weight, costs)
            costs = costs * full(weight)
        total = self.loss_weight * self._reduced(costs, reduction, avg_factor)
        return self.tau**2 * total if self.mult_tem_square else total

    def _check_weight(self, weight: object, costs: Tensor) -> None:
        if not isinstance(weight, Tensor) or weight.shape != costs.shape:
            found = f"has shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"is {weight!r}"
            raise refusal(self, f"weight {found}; it takes one number a sample, of shape {tuple(costs.shape)}.")

    def _reduced(self, costs: Tensor, reduction: str, avg_factor: float | Tensor | None) -> Tensor:
        if reduction == "none":
            return costs
        if avg_factor is None:
            return costs.sum() if reduction == "sum" else average(costs)
        if reduction == "sum":
            raise refusal(self, "avg_factor divides a mean, and the reduction is 'sum'; leave one of them out.")
        if isinstance(avg_factor, Tensor):
            return costs.sum() / avg_factor.masked_fill(avg_factor == 0, 1)
        return costs.sum() / (avg_factor or 1)
