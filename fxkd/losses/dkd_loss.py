"""Divergence of two class distributions in two parts: the labelled class against the rest, the rest among itself."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import (
    IGNORED,
    check_choice,
    check_flags,
    check_labels,
    check_logits,
    check_numbers,
    check_same_shape,
    check_temperature,
    warn_compat,
)
from fxkd.losses._values import full
from fxkd.losses.kl_divergence import kl_terms
from fxkd.registry import loss


def _target_and_rest(log_probs: Tensor, labels: Tensor, is_target: Tensor) -> Tensor:
    """Return the log-probability of the labelled class and that of all others together, (N, 2)."""
    rest = log_probs.masked_fill(is_target, -math.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([log_probs.gather(1, labels), rest], dim=1)


def _among_rest(logits: Tensor, is_target: Tensor) -> Tensor:
    """Return log-probabilities (N, C) with the labelled class pushed out of the competition."""
    return F.log_softmax(torch.where(is_target, logits - 1000.0, logits), dim=1)


@loss("DKDLoss")
class DKDLoss(nn.Module):
    """Pull the student to the teacher separately for the labelled class and for the classes beside it.

    With ``KL`` the divergence of the teacher's distribution from the student's at temperature ``tau``, summed over the
    samples with a label::

        loss = loss_weight * tau^2 * (alpha * KL(labelled class, rest) + beta * KL(rest among itself))

    Args:
        tau: The temperature, above 0.
        alpha: Weight of the part that tells the labelled class from the rest.
        beta: Weight of the part that orders the rest.
        reduction: ``"batchmean"`` divides by N. ``"mean"``, ``"sum"`` and ``"none"`` all give the plain sum over the
            batch: that is what they do in MMRazor, whose configurations rely on it.
        loss_weight: Factor of the result.
        compat: False gives the reductions their meaning: ``"mean"`` averages each of the two parts over its own
            elements (2 N and N * C of them), ``"none"`` gives the loss of each sample, (N,).

    Shape:
        ``preds_S`` and ``preds_T`` are logits (N, C); ``gt_labels`` are class indices (N,) or (N, 1). A sample whose
        label is -100 counts nowhere, not in N either; without any other the loss is 0. Gradient reaches both logits.

    Raises:
        SpecError: An option has a value it cannot have, the logits differ in shape or are not (N, C), or the labels are
            not one index a sample.

    From "Decoupled Knowledge Distillation", arXiv 2203.08679.

    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> DKDLoss(beta=0.5)(student, teacher, torch.tensor([2]))
    tensor(0.9610)
    """

    kind: ClassVar[str] = "response"

    def __init__(
        self,
        tau: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        reduction: str = "batchmean",
        loss_weight: float = 1.0,
        compat: bool = True,
    ) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_numbers(self, alpha=alpha, beta=beta, loss_weight=loss_weight)
        check_choice(self, "reduction", reduction, ("batchmean", "mean", "sum", "none"))
        check_flags(self, compat=compat)
        if compat and reduction in ("mean", "none"):
            warn_compat(
                self, f"reduction {reduction!r} gives the sum over the batch, as in MMRazor", "what its name says"
            )
        self.tau = tau
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction
        self.compat = compat
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        check_logits(self, preds_S=preds_S)
        check_labels(self, gt_labels, preds_S.shape[0])
        target_kl, rest_kl = self._parts(full(preds_S) / self.tau, full(preds_T) / self.tau, gt_labels.reshape(-1, 1))
        counted = (gt_labels != IGNORED).sum().clamp_min(1)
        if self.reduction == "mean" and not self.compat:
            target_kl, rest_kl = target_kl / 2, rest_kl / preds_S.shape[1]
        losses = self.loss_weight * self.tau**2 * (self.alpha * target_kl + self.beta * rest_kl)
        if self.reduction == "none" and not self.compat:
            return losses
        averages = self.reduction == "batchmean" or (self.reduction == "mean" and not self.compat)
        return losses.sum() / counted if averages else losses.sum()

    def _parts(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both divergences of each sample, (N,); 0 where the label is to be ignored."""
        counts = labels != IGNORED
        labels = labels.long().masked_fill(~counts, 0)
        is_target = torch.zeros_like(student, dtype=torch.bool).scatter(1, labels, True)
        target_kl = kl_terms(
            _target_and_rest(F.log_softmax(teacher, dim=1), labels, is_target),
            _target_and_rest(F.log_softmax(student, dim=1), labels, is_target),
        )
        rest_kl = kl_terms(_among_rest(teacher, is_target), _among_rest(student, is_target))
        return (target_kl * counts).sum(dim=1), (rest_kl * counts).sum(dim=1)
