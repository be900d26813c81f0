"""Absolute distance of two features."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_numbers, check_same_shape
from fxkd.losses._values import average, full
from fxkd.registry import loss


def _from_flags(size_average: bool | None, reduce: bool | None) -> str:
    """Return the reduction that torch's two old flags stand for; a flag left out counts as true."""
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


@loss("L1Loss")
class L1Loss(nn.Module):
    """Sum or average the absolute differences of two features.

    ::

        loss = loss_weight * reduce(|s_feature - t_feature|)

    Args:
        loss_weight: Factor of the result.
        size_average: Old flag of torch; when it or ``reduce`` is given, ``reduction`` does not count. False sums.
        reduce: Old flag of torch. False keeps every element.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        ``s_feature`` and ``t_feature`` have one shape, of any rank. Gradient reaches both.

    Raises:
        SpecError: An option has a value it cannot have, or the shapes differ.

    Used for data-free distillation in "Data-Free Adversarial Distillation", arXiv 1912.11006.

    >>> import torch
    >>> L1Loss()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    tensor(1.5000)
    """

    kind: ClassVar[str] = "feature"

    def __init__(
        self,
        loss_weight: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        check_choice(self, "size_average", size_average, (None, True, False))
        check_choice(self, "reduce", reduce, (None, True, False))
        check_choice(self, "reduction", reduction, ("mean", "sum", "none"))
        self.loss_weight = loss_weight
        self.reduction = reduction if size_average is None and reduce is None else _from_flags(size_average, reduce)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_shape(self, s_feature=s_feature, t_feature=t_feature)
        distance = F.l1_loss(full(s_feature), full(t_feature), reduction="none")
        if self.reduction == "none":
            return self.loss_weight * distance
        return self.loss_weight * (distance.sum() if self.reduction == "sum" else average(distance))
