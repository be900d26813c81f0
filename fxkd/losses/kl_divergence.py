"""Divergence of two softened class distributions: what most people mean by knowledge distillation."""

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_numbers, check_same_shape, check_temperature
from fxkd.losses._values import average, full, per_sample
from fxkd.registry import loss


def _unreduced(terms: Tensor) -> Tensor:
    return terms


_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "batchmean": per_sample,
    "mean": average,
    "sum": Tensor.sum,
    "none": _unreduced,
}


def kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ``p * (log p - log q)`` per element, and 0 with a zero gradient where ``p`` is 0."""
    p = log_p.exp()
    return p * (log_p - log_q).masked_fill(p == 0, 0.0)


@loss("KLDivergence")
class KLDivergence(nn.Module):
    """Pull the student's class distribution to the teacher's, both softened by a temperature.

    With ``p = softmax(preds_T / tau)`` and ``q = softmax(preds_S / tau)``, both over dim 1::

        loss = loss_weight * tau^2 * reduce(p * (log p - log q))

    ``tau^2`` is there with every reduction; it keeps the size of the gradient when ``tau`` changes.

    Args:
        tau: The temperature, above 0.
        reduction: ``"batchmean"`` is the sum over everything divided by N (so the positions of a map add up),
            ``"mean"`` the mean over all elements, ``"sum"`` the sum, ``"none"`` keeps the shape of the inputs.
        loss_weight: Factor of the result.
        teacher_detach: Let no gradient reach ``preds_T``.

    Shape:
        ``preds_S`` and ``preds_T`` are logits (N, C) or (N, C, ...), such as (N, C, H, W). Classes lie in dim 1:
        language logits (N, L, V) must come as (N * L, V).

    Raises:
        SpecError: An option has a value it cannot have, or the shapes differ.

    From "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> KLDivergence()(student, teacher)
    tensor(1.1504)
    >>> KLDivergence(tau=4)(student, student)
    tensor(0.)
    """

    kind: ClassVar[str] = "response"

    def __init__(
        self, tau: float = 1.0, reduction: str = "batchmean", loss_weight: float = 1.0, teacher_detach: bool = True
    ) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_choice(self, "reduction", reduction, _REDUCTIONS)
        check_numbers(self, loss_weight=loss_weight)
        check_choice(self, "teacher_detach", teacher_detach, (True, False))
        self.tau = tau
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.teacher_detach = teacher_detach

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        if self.teacher_detach:
            preds_T = preds_T.detach()
        log_student = F.log_softmax(full(preds_S) / self.tau, dim=1)
        log_teacher = F.log_softmax(full(preds_T) / self.tau, dim=1)
        divergence = _REDUCTIONS[self.reduction](kl_terms(log_teacher, log_student))
        return self.loss_weight * self.tau**2 * divergence
