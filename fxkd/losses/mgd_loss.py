"""Distance of a feature generated from a masked one: the loss of masked generative distillation."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape
from fxkd.losses._values import full, per_sample
from fxkd.registry import loss


@loss("MGDLoss")
class MGDLoss(nn.Module):
    """Sum the squared differences of the teacher's feature and what the student generates of it.

    ::

        loss = alpha_mgd * sum((preds_S - preds_T)^2) / N

    Masking and generation are in ``MGDConnector``, which belongs on the student's side.

    Args:
        alpha_mgd: Factor of the result; there is no ``loss_weight``.

    Shape:
        ``preds_S`` and ``preds_T`` have one shape, (N, C, H, W) or another (N, ...). Gradient reaches both.

    Raises:
        SpecError: ``alpha_mgd`` is no number, or the shapes differ.

    From "Masked Generative Distillation", arXiv 2205.01529.

    >>> import torch
    >>> MGDLoss(alpha_mgd=0.5)(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]))
    tensor(8.)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, alpha_mgd: float = 2e-5) -> None:
        super().__init__()
        check_numbers(self, alpha_mgd=alpha_mgd)
        self.alpha_mgd = alpha_mgd

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        return self.alpha_mgd * per_sample((full(preds_S) - full(preds_T)).square())
