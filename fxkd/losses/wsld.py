"""Soft labels weighted by who knows better: distillation that leaves alone what the student can already do."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import (
    IGNORED,
    check_labels,
    check_logits,
    check_numbers,
    check_same_shape,
    check_temperature,
    check_whole,
    refusal,
)
from fxkd.losses._values import full
from fxkd.losses.kd_soft_ce_loss import soft_cross_entropy
from fxkd.registry import loss


@loss("WSLD")
class WSLD(nn.Module):
    """Train the student on soft labels, each sample weighted by how much more the teacher knows about it.

    With ``c = -sum(softmax(teacher / tau) * log softmax(student / tau))``, and ``u`` and ``v`` the cross entropies of
    student and teacher with the label, at temperature 1 and without gradient::

        g = 1 - exp(-u / (v + 1e-7))
        loss = loss_weight * tau^2 * mean(g * c)

    Args:
        tau: The temperature, above 0.
        loss_weight: Factor of the result.
        num_classes: How many classes the logits have.

    Shape:
        ``student`` and ``teacher`` are logits (N, num_classes); ``gt_labels`` are class indices (N,) or (N, 1). A
        sample whose label is -100 does not count, in the mean neither; without any other the loss is 0. Gradient
        reaches both logits.

    Raises:
        SpecError: An option has a value it cannot have, the logits differ in shape or are not (N, num_classes), or the
            labels are not one index a sample.

    From "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective", arXiv 2102.00650.

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> WSLD(num_classes=3)(student, teacher, torch.tensor([0]))
    tensor(1.9774)
    """

    kind: ClassVar[str] = "response"

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_numbers(self, loss_weight=loss_weight)
        check_whole(self, num_classes=num_classes)
        self.tau = tau
        self.loss_weight = loss_weight
        self.num_classes = num_classes

    def forward(self, student: Tensor, teacher: Tensor, gt_labels: Tensor) -> Tensor:
        self._check_inputs(student, teacher, gt_labels)
        student, teacher = full(student), full(teacher)
        labels = gt_labels.reshape(-1).long()
        known = F.cross_entropy(student.detach(), labels, reduction="none", ignore_index=IGNORED)
        taught = F.cross_entropy(teacher.detach(), labels, reduction="none", ignore_index=IGNORED)
        gain = 1 - (-known.clamp_min(0) / (taught + 1e-7)).exp()  # 0 where the label is to be ignored
        total = (gain * soft_cross_entropy(student / self.tau, teacher / self.tau)).sum()
        return self.loss_weight * self.tau**2 * total / (labels != IGNORED).sum().clamp_min(1)

    def _check_inputs(self, student: Tensor, teacher: Tensor, gt_labels: Tensor) -> None:
        check_same_shape(self, student=student, teacher=teacher)
        check_logits(self, student=student)
        check_labels(self, gt_labels, student.shape[0])
        if student.shape[1] != self.num_classes:
            raise refusal(
                self,
                f"num_classes is {self.num_classes}, but the logits have {student.shape[1]} classes; set it to that.",
            )
