"""Angles between the samples of a batch: relational distillation of triples."""

from typing import ClassVar

from torch import Tensor, nn

from fxkd.losses._checks import check_flags, check_numbers, check_same_batch
from fxkd.losses._values import average, full, huber, no_autocast, rows, unit
from fxkd.registry import loss


def _cosines(samples: Tensor) -> Tensor:
    """Return the cosine of the angle at sample i between samples j and k, (N, N, N); 0 where i is one of them."""
    directions = unit(samples[None] - samples[:, None])
    with no_autocast(samples):
        cosines: Tensor = directions @ directions.transpose(1, 2)
    return cosines


@loss("AngleWiseRKD")
class AngleWiseRKD(nn.Module):
    """Let any three of the student's samples form the triangle, up to size, that the teacher's form.

    With ``A[i, j, k]`` the cosine of the angle at sample i between j and k, and ``huber(z)`` = ``z^2 / 2`` where
    ``|z| < 1``, else ``|z| - 1/2``::

        loss = loss_weight * mean(huber(A(preds_S) - A(preds_T)))

    The mean runs over all N^3 triples; memory is N^2 times the width, plus N^3. Equal samples make angles with cosine
    0, and so costs one sample alone nothing.

    Args:
        loss_weight: Factor of the result.
        with_l2_norm: First scale each sample to length 1.

    Shape:
        ``preds_S`` (N, ...) and ``preds_T`` (N, ...), flattened to rows; their widths may differ. Gradient reaches
        both.

    Raises:
        SpecError: An option has a value it cannot have, or N differs.

    From "Relational Knowledge Distillation", arXiv 1904.05068.

    >>> import torch
    >>> student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> AngleWiseRKD(with_l2_norm=False)(student, 5 * student + 1).round(decimals=4)
    tensor(0.)
    """

    kind: ClassVar[str] = "relation"

    def __init__(self, loss_weight: float = 50.0, with_l2_norm: bool = True) -> None:
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
        return self.loss_weight * average(huber(_cosines(student) - _cosines(teacher)))
