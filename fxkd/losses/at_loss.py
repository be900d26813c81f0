"""Distance of two attention maps: where a network looks, whatever its channels."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_space
from fxkd.losses._values import average, full, rows, unit
from fxkd.registry import loss


def attention_map(feature: Tensor) -> Tensor:
    """Return the mean square over the channels of (N, C, ...) as rows (N, space) of length 1."""
    return unit(rows(full(feature).pow(2).mean(dim=1)))


@loss("ATLoss")
class ATLoss(nn.Module):
    """Pull the student's spatial attention to the teacher's.

    With ``a(x)`` the mean of ``x^2`` over the channels, flattened and scaled to length 1 in each sample::

        loss = loss_weight * mean((a(s_feature) - a(t_feature))^2)

    The mean runs over all N * H * W elements, so values are small: papers and configurations multiply by about 250 to
    1000.

    Args:
        loss_weight: Factor of the result.

    Shape:
        ``s_feature`` (N, C_s, H, W) and ``t_feature`` (N, C_t, H, W), or another number of space axes. Without one, as
        in (N, C), every map is the number 1 and the loss is 0. Gradient reaches both.

    Raises:
        SpecError: ``loss_weight`` is no number, or N or the space differ.

    From "Paying More Attention to Attention", arXiv 1612.03928.

    >>> import torch
    >>> student = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])  # two channels, both look at the first position
    >>> teacher = torch.tensor([[[0.0, 5.0]]])  # one channel, looks at the second
    >>> ATLoss(loss_weight=250)(student, teacher)
    tensor(250.)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_space(self, s_feature=s_feature, t_feature=t_feature)
        difference = attention_map(s_feature) - attention_map(t_feature)
        return self.loss_weight * average(difference.pow(2))
