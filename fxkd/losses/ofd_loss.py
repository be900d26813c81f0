"""Partial distance of two features: what both leave under zero is let be."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape, refusal
from fxkd.losses._values import full, per_sample
from fxkd.registry import loss


@loss("OFDLoss")
class OFDLoss(nn.Module):
    """Sum the squared differences, except where the student is at or below a teacher that does not fire.

    ::

        loss = loss_weight * sum((s - t)^2 where s > t or t > 0) / (N * mul_factor)

    Meant for features before the activation, the teacher's through ``OFDTeacherConnector``.

    Args:
        loss_weight: Factor of the result.
        mul_factor: Divisor of the result, not 0.

    Shape:
        ``s_feature`` and ``t_feature`` have one shape, (N, ...). Gradient reaches both.

    Raises:
        SpecError: An option has a value it cannot have, or the shapes differ.

    From "A Comprehensive Overhaul of Feature Distillation", arXiv 1904.01866.

    >>> import torch
    >>> OFDLoss(mul_factor=1)(torch.tensor([[-3.0, 2.0, 5.0]]), torch.tensor([[-1.0, -1.0, 1.0]]))  # 0 + 9 + 16
    tensor(25.)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, loss_weight: float = 1.0, mul_factor: float = 1000.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight, mul_factor=mul_factor)
        if mul_factor == 0:
            raise refusal(self, "mul_factor is 0; it divides the loss, so it must be another number.")
        self.loss_weight = loss_weight
        self.mul_factor = mul_factor

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_shape(self, s_feature=s_feature, t_feature=t_feature)
        student, teacher = full(s_feature), full(t_feature)
        counts = (student > teacher) | (teacher > 0)
        return self.loss_weight * per_sample((student - teacher).square() * counts) / self.mul_factor
