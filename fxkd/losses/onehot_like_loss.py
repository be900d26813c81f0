"""Cross entropy of logits with their own decision: for generators of data-free distillation."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_logits, check_numbers
from fxkd.losses._values import average, full
from fxkd.registry import loss


@loss("OnehotLikeLoss")
class OnehotLikeLoss(nn.Module):
    """Let generated images be ones that the teacher is sure about.

    ::

        loss = loss_weight * mean over samples of -log max softmax(preds_T)

    Args:
        loss_weight: Factor of the result.

    Shape:
        ``preds_T`` are the teacher's logits (N, C); the gradient goes through them to the generator.

    Raises:
        SpecError: ``loss_weight`` is no number, or the logits are not (N, C).

    From "DAFL: Data-Free Learning of Student Networks", arXiv 1904.01186.

    >>> import torch
    >>> OnehotLikeLoss()(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor(0.4076)
    """

    kind: ClassVar[str] = "data-free"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, preds_T: Tensor) -> Tensor:
        check_logits(self, preds_T=preds_T)
        decided = preds_T.detach().argmax(dim=1, keepdim=True)
        return self.loss_weight * average(-F.log_softmax(full(preds_T), dim=1).gather(1, decided))
