"""Cross entropy with the teacher's decision: distillation by hard labels."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_logits, check_numbers, check_same_shape
from fxkd.losses._values import average, full
from fxkd.registry import loss


@loss("CrossEntropyLoss")
class CrossEntropyLoss(nn.Module):
    """Train the student on the class the teacher decides for.

    ::

        loss = loss_weight * mean over samples of -log softmax(preds_S)[argmax(preds_T)]

    Labels of the data play no part, so there is nothing to ignore.

    Args:
        loss_weight: Factor of the result.

    Shape:
        ``preds_S`` and ``preds_T`` are logits (N, C). No gradient reaches the teacher.

    Raises:
        SpecError: ``loss_weight`` is no number, the shapes differ, or they are not (N, C).

    Hard-label distillation of "Training data-efficient image transformers & distillation through attention", arXiv
    2012.12877.

    >>> import torch
    >>> CrossEntropyLoss()(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 9.0, 0.0]]))
    tensor(1.4076)
    """

    kind: ClassVar[str] = "response"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        check_logits(self, preds_S=preds_S)
        decided = preds_T.detach().argmax(dim=1, keepdim=True)
        return self.loss_weight * average(-F.log_softmax(full(preds_S), dim=1).gather(1, decided))
