"""Divergence of two class distributions in two parts: the labelled class against the rest, the rest among itself."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_numbers, check_same_shape, check_temperature, refusal
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
    batch::

        loss = loss_weight * tau^2 * (alpha * KL(labelled class, rest) + beta * KL(rest among itself))

    Args:
        tau: The temperature, above 0.
        alpha: Weight of the part that tells the labelled class from the rest.
        beta: Weight of the part that orders the rest.
        reduction: ``"batchmean"`` divides by N. ``"mean"``, ``"sum"`` and ``"none"`` all give the plain sum over the
            batch: that is what they do in MMRazor, whose configurations rely on it.
        loss_weight: Factor of the result.

    Shape:
        ``preds_S`` and ``preds_T`` are logits (N, C); ``gt_labels`` are class indices (N,) or (N, 1). Gradient reaches
        both logits.

    Raises:
        SpecError: An option has a value it cannot have, the logits differ in shape or are not (N, C), or the labels are
            not one index a sample.

    From "Decoupled Knowledge Distillation", arXiv 2203.08679.

    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> DKDLoss(beta=0.5)(student, teacher, torch.tensor([2]))
    tensor(0.9610)
    """

    def __init__(
        self,
        tau: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        reduction: str = "batchmean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_temperature(self, tau)
        check_numbers(self, alpha=alpha, beta=beta, loss_weight=loss_weight)
        check_choice(self, "reduction", reduction, ("batchmean", "mean", "sum", "none"))
        self.tau = tau
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> Tensor:
        self._check_inputs(preds_S, preds_T, gt_labels)
        labels = gt_labels.reshape(-1, 1).long()
        is_target = torch.zeros_like(preds_S, dtype=torch.bool).scatter(1, labels, True)
        student, teacher = preds_S / self.tau, preds_T / self.tau
        target_kl = kl_terms(
            _target_and_rest(F.log_softmax(teacher, dim=1), labels, is_target),
            _target_and_rest(F.log_softmax(student, dim=1), labels, is_target),
        ).sum()
        rest_kl = kl_terms(_among_rest(teacher, is_target), _among_rest(student, is_target)).sum()
        total = self.loss_weight * self.tau**2 * (self.alpha * target_kl + self.beta * rest_kl)
        return total / preds_S.shape[0] if self.reduction == "batchmean" else total

    def _check_inputs(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> None:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        if preds_S.ndim != 2:
            raise refusal(self, f"preds_S has shape {tuple(preds_S.shape)}; it takes logits (N, C).")
        samples = preds_S.shape[0]
        if tuple(gt_labels.shape) not in ((samples,), (samples, 1)) or gt_labels.is_floating_point():
            raise refusal(
                self,
                f"gt_labels is {gt_labels.dtype} of shape {tuple(gt_labels.shape)}; it takes {samples} class indices, "
                f"of shape ({samples},) or ({samples}, 1). Of soft labels take the argmax.",
            )
