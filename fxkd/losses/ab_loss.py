"""Distance of activation boundaries: which neurons fire, not how strongly."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape
from fxkd.losses._values import full, per_sample
from fxkd.registry import loss


@loss("ABLoss")
class ABLoss(nn.Module):
    """Push each neuron of the student to the side of zero on which the teacher's is, a margin beyond it.

    With ``m = margin``, element by element::

        e = (s + m)^2  where s > -m and t <= 0
        e = (s - m)^2  where s <= m and t > 0
        loss = loss_weight * 3 * sum(e) / (1000 * N)

    3 and 1000 are fixed, as in MMRazor. Meant for features before the activation.

    Args:
        loss_weight: Factor of the result.
        margin: How far beyond zero is far enough.

    Shape:
        ``s_feature`` and ``t_feature`` have one shape, (N, ...). Of the teacher only the sign counts: no gradient
        reaches it.

    Raises:
        SpecError: An option is no number, or the shapes differ.

    From "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", arXiv 1811.03233.

    >>> import torch
    >>> ABLoss()(torch.tensor([[1.0, 1.0]]), torch.tensor([[-5.0, 5.0]]))  # one neuron fires, and should not
    tensor(0.0120)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, loss_weight: float = 1.0, margin: float = 1.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight, margin=margin)
        self.loss_weight = loss_weight
        self.margin = margin

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_shape(self, s_feature=s_feature, t_feature=t_feature)
        student, teacher = full(s_feature), full(t_feature)
        too_high = (student + self.margin).square() * ((student > -self.margin) & (teacher <= 0))
        too_low = (student - self.margin).square() * ((student <= self.margin) & (teacher > 0))
        return self.loss_weight * per_sample(too_high + too_low) / 1000 * 3
