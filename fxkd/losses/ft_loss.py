"""Distance of two factors: what a paraphraser and a translator make of features."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape
from fxkd.losses._values import average, full, rows, unit
from fxkd.registry import loss


@loss("FTLoss")
class FTLoss(nn.Module):
    """Pull the student's factor to the teacher's, each sample scaled to length 1.

    ::

        loss = loss_weight * mean(|s / ||s|| - t / ||t|| |)

    A length under 1e-12 counts as 1e-12; a sample of zeros stays zero.

    Args:
        loss_weight: Factor of the result.

    Shape:
        ``s_feature`` and ``t_feature`` have one shape, (N, ...). Gradient reaches both.

    Raises:
        SpecError: ``loss_weight`` is no number, or the shapes differ.

    From "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv 1802.04977.

    >>> import torch
    >>> FTLoss()(torch.tensor([[3.0, 4.0]]), torch.tensor([[9.0, 0.0]]))
    tensor(0.6000)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_shape(self, s_feature=s_feature, t_feature=t_feature)
        difference = unit(rows(full(s_feature))) - unit(rows(full(t_feature)))
        return self.loss_weight * average(difference.abs())
