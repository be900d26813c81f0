"""Divergence of where each channel looks: distillation of segmentation and detection maps."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape, check_temperature, refusal
from fxkd.losses._values import full
from fxkd.losses.kl_divergence import kl_terms
from fxkd.registry import loss


@loss("ChannelWiseDivergence")
class ChannelWiseDivergence(nn.Module):
    """Pull the distribution over positions of each student channel to that of the same teacher channel.

    With ``p = softmax(preds_T / tau)`` and ``q = softmax(preds_S / tau)``, both over the H * W positions of a channel::

        loss = loss_weight * tau^2 * sum(p * (log p - log q)) / (N * C)

    Args:
        tau: The temperature, above 0.
        loss_weight: Factor of the result.

    Shape:
        ``preds_S`` and ``preds_T`` have one shape, (N, C, H, W), or another number of space axes, at least one.
        Gradient reaches both.

    Raises:
        SpecError: An option has a value it cannot have, the shapes differ, or there is no space axis.

    From "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256.

    >>> import torch
    >>> student = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> ChannelWiseDivergence()(student, student.flip(-1))
    tensor(1.1504)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_numbers(self, loss_weight=loss_weight)
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        if preds_S.ndim < 3:
            problem = f"preds_S has shape {tuple(preds_S.shape)}; it needs space axes after (N, C)."
            raise refusal(self, f"{problem} For logits take KLDivergence.")
        log_student = F.log_softmax(full(preds_S).flatten(2) / self.tau, dim=2)
        log_teacher = F.log_softmax(full(preds_T).flatten(2) / self.tau, dim=2)
        channels = max(preds_S.shape[0] * preds_S.shape[1], 1)
        return self.loss_weight * self.tau**2 * kl_terms(log_teacher, log_student).sum() / channels
