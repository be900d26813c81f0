"""Balance of the classes in a batch: for generators of data-free distillation."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_flags, check_logits, check_numbers
from fxkd.losses._ranks import sum_over_ranks
from fxkd.losses._values import full
from fxkd.registry import loss


@loss("InformationEntropyLoss")
class InformationEntropyLoss(nn.Module):
    """Let generated images spread over all classes.

    With ``p`` the mean of ``softmax(preds_T)`` over the batch::

        loss = loss_weight * sum(p * log10 p)

    It is least where all classes are equally frequent. A class of probability 0 counts 0.

    Args:
        gather: Where torch.distributed is initialised, take the mean over the batches of all ranks, which need not
            be equally large. The gradient is the one that gathering all logits and summing over the ranks gives.
        loss_weight: Factor of the result.

    Shape:
        ``preds_T`` are the teacher's logits (N, C); the gradient goes through them to the generator.

    Raises:
        SpecError: An option has a value it cannot have, or the logits are not (N, C).

    From "DAFL: Data-Free Learning of Student Networks", arXiv 1904.01186.

    >>> import torch
    >>> InformationEntropyLoss()(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    tensor(-0.3010)
    """

    kind: ClassVar[str] = "data-free"

    def __init__(self, gather: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_flags(self, gather=gather)
        check_numbers(self, loss_weight=loss_weight)
        self.gather = gather
        self.loss_weight = loss_weight

    def forward(self, preds_T: Tensor) -> Tensor:
        check_logits(self, preds_T=preds_T)
        probs = F.softmax(full(preds_T), dim=1)
        total = torch.cat([probs.sum(dim=0), probs.new_full((1,), probs.shape[0])])
        if self.gather:
            total = sum_over_ranks(total)
        mean = total[:-1] / total[-1].clamp_min(1)
        return self.loss_weight * (mean * mean.masked_fill(mean == 0, 1.0).log10()).sum()
