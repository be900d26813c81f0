"""Correlation of predictions, between classes and between samples: distillation from a stronger teacher."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_flags, check_logits, check_numbers, check_same_shape, check_temperature
from fxkd.losses._values import full, nothing
from fxkd.registry import loss


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    """Return Pearson's correlation of each row with its partner, and 0 for a row that is constant."""
    left, right = (side - side.mean(dim=1, keepdim=True) for side in (left, right))
    lengths: Tensor = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
    return (left * right).sum(dim=1) / (lengths + 1e-8)


@loss("DISTLoss")
class DISTLoss(nn.Module):
    """Let the student's probabilities rise and fall with the teacher's, over classes and over samples.

    With ``a = softmax(logits_S / tau)``, ``b = softmax(logits_T / tau)`` and ``rho`` Pearson's correlation (1e-8 is
    added to its divisor)::

        inter = 1 - mean over samples of rho(a[n], b[n])
        intra = 1 - mean over classes of rho(a[:, c], b[:, c])
        loss = loss_weight * tau^2 * (inter_loss_weight * inter + intra_loss_weight * intra)

    One sample alone has nothing to correlate with: ``intra`` is then 1.

    Args:
        inter_loss_weight: Weight of the correlation over classes.
        intra_loss_weight: Weight of the correlation over samples.
        tau: The temperature, above 0.
        loss_weight: Factor of the result.
        teacher_detach: Let no gradient reach ``logits_T``.

    Shape:
        ``logits_S`` and ``logits_T`` are (N, C).

    Raises:
        SpecError: An option has a value it cannot have, the shapes differ, or they are not (N, C).

    From "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536.

    >>> logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    >>> DISTLoss()(logits, 2 * logits) < DISTLoss()(logits, -logits)
    tensor(True)
    """

    kind: ClassVar[str] = "relation"

    def __init__(
        self,
        inter_loss_weight: float = 1.0,
        intra_loss_weight: float = 1.0,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
    ) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_numbers(
            self, inter_loss_weight=inter_loss_weight, intra_loss_weight=intra_loss_weight, loss_weight=loss_weight
        )
        check_flags(self, teacher_detach=teacher_detach)
        self.inter_loss_weight = inter_loss_weight
        self.intra_loss_weight = intra_loss_weight
        self.tau = tau
        self.loss_weight = loss_weight
        self.teacher_detach = teacher_detach

    def forward(self, logits_S: Tensor, logits_T: Tensor) -> Tensor:
        check_same_shape(self, logits_S=logits_S, logits_T=logits_T)
        check_logits(self, logits_S=logits_S)
        if self.teacher_detach:
            logits_T = logits_T.detach()
        student, teacher = full(logits_S), full(logits_T)
        if not student.numel():
            return nothing(student, teacher)
        student, teacher = F.softmax(student / self.tau, dim=1), F.softmax(teacher / self.tau, dim=1)
        inter = 1 - _correlation(student, teacher).mean()
        intra = 1 - _correlation(student.t(), teacher.t()).mean()
        total = self.inter_loss_weight * inter + self.intra_loss_weight * intra
        return self.loss_weight * self.tau**2 * total
