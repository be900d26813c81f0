"""Distances between the samples of a batch: relational distillation of pairs."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fxkd.losses._checks import check_flags, check_numbers, check_same_batch
from fxkd.losses._values import average, full, huber, no_autocast, rows, unit
from fxkd.registry import loss


def _distances(samples: Tensor) -> Tensor:
    """Return the distance of each pair of rows, (N, N), in units of their mean; the diagonal is 0."""
    lengths = samples.square().sum(dim=1)
    with no_autocast(samples):
        products = samples @ samples.t()
    squares = lengths[:, None] + lengths - 2 * products
    itself = torch.eye(samples.shape[0], dtype=torch.bool, device=samples.device)
    distances = squares.clamp_min(1e-12).sqrt().masked_fill(itself, 0.0)
    mean = distances.sum() / max(distances.numel() - samples.shape[0], 1)
    return distances / mean.masked_fill(mean == 0, 1.0)


@loss("DistanceWiseRKD")
class DistanceWiseRKD(nn.Module):
    """Let the student's samples lie as far from each other, relatively, as the teacher's.

    With ``D`` the distances of all pairs of samples, divided by the mean of those between different samples, and
    ``huber(z)`` = ``z^2 / 2`` where ``|z| < 1``, else ``|z| - 1/2``::

        loss = loss_weight * mean(huber(D(preds_S) - D(preds_T)))

    The mean runs over all N * N pairs. Squared distances under 1e-12 count as that. One sample alone costs nothing.

    Args:
        loss_weight: Factor of the result.
        with_l2_norm: First scale each sample to length 1.

    Shape:
        ``preds_S`` (N, ...) and ``preds_T`` (N, ...), flattened to rows; their widths may differ. Gradient reaches
        both.

    Raises:
        SpecError: An option has a value it cannot have, or N differs.

    From "Relational Knowledge Distillation", arXiv 1904.05068.

    >>> student = torch.tensor([[0.0], [1.0], [3.0]])
    >>> DistanceWiseRKD(with_l2_norm=False)(student, 5 * student)
    tensor(0.)
    """

    kind: ClassVar[str] = "relation"

    def __init__(self, loss_weight: float = 25.0, with_l2_norm: bool = True) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        check_flags(self, with_l2_norm=with_l2_norm)
        self.loss_weight = loss_weight
        self.with_l2_norm = with_l2_norm

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_batch(self, preds_S=preds_S, preds_T=preds_T)
        student, teacher = rows(full(preds_S)), rows(full(preds_T))
        if self.with_l2_norm:
            student, teacher = unit(student), unit(teacher)
        return self.loss_weight * average(huber(_distances(student) - _distances(teacher)))
