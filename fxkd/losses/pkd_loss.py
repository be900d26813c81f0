"""Distance of two features with each channel standardised, which is one of their correlations."""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_flags, check_maps, check_numbers, refusal
from fxkd.losses._values import average, full
from fxkd.registry import loss


def _standardised(feature: Tensor) -> Tensor:
    """Return (N, C, H, W) with mean 0 and standard deviation 1 in each channel; a constant channel becomes zeros."""
    centred = feature - feature.mean(dim=(0, 2, 3), keepdim=True)
    freedom = max(feature.shape[0] * feature.shape[2] * feature.shape[3] - 1, 1)
    deviation: Tensor = torch.linalg.vector_norm(centred, dim=(0, 2, 3), keepdim=True) * freedom**-0.5
    return centred / (deviation + 1e-6)


@loss("PKDLoss")
class PKDLoss(nn.Module):
    """Let the student's channels vary with the teacher's over positions and samples, at any scale.

    With ``z(x)`` each channel of ``x`` less its mean, divided by its standard deviation (N * H * W - 1 in the divisor)
    plus 1e-6::

        loss = loss_weight * sum over levels of mean((z(preds_S) - z(preds_T))^2) / 2

    Args:
        loss_weight: Factor of the result.
        resize_stu: Where the sizes of a level differ, resize the student's maps to the teacher's (bilinear). False
            resizes the teacher's.

    Shape:
        ``preds_S`` and ``preds_T`` are maps (N, C, H, W), of one N and C, or a list or tuple of them, one a level, of
        one length. Gradient reaches both.

    Raises:
        SpecError: An option has a value it cannot have, a level is no (N, C, H, W), N or C differ, or there are not as
            many levels on both sides.

    From "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient", arXiv
    2207.02039.

    >>> feature = torch.rand(2, 3, 4, 4)
    >>> PKDLoss()(feature, 10 * feature + 5) < 1e-6
    tensor(True)
    """

    kind: ClassVar[str] = "feature"

    def __init__(self, loss_weight: float = 1.0, resize_stu: bool = True) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        check_flags(self, resize_stu=resize_stu)
        self.loss_weight = loss_weight
        self.resize_stu = resize_stu

    def forward(self, preds_S: Tensor | Iterable[Tensor], preds_T: Tensor | Iterable[Tensor]) -> Tensor:
        students, teachers = self._levels("preds_S", preds_S), self._levels("preds_T", preds_T)
        if len(students) != len(teachers) or not students:
            problem = f"preds_S has {len(students)} levels and preds_T has {len(teachers)}"
            raise refusal(self, f"{problem}; give both as many, at least one.")
        levels = [self._level(student, teacher) for student, teacher in zip(students, teachers, strict=True)]
        return self.loss_weight * sum(levels[1:], start=levels[0])

    def _levels(self, name: str, given: Tensor | Iterable[Tensor]) -> list[Tensor]:
        if isinstance(given, Tensor):
            return [given]
        if isinstance(given, (list, tuple)):
            return list(given)
        raise refusal(self, f"{name} is a {type(given).__name__}; it takes a tensor, or a list or tuple of them.")

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_maps(self, preds_S=student, preds_T=teacher)
        if student.shape[:2] != teacher.shape[:2]:
            shapes = f"preds_S has shape {tuple(student.shape)} and preds_T has shape {tuple(teacher.shape)}"
            raise refusal(self, f"{shapes}; N and C must be equal. ConvModuleConnector changes the channels.")
        student, teacher = full(student), full(teacher)
        if not student.numel():
            return average(student) + average(teacher)
        if student.shape[2:] != teacher.shape[2:]:
            student, teacher = self._one_size(student, teacher)
        return average((_standardised(student) - _standardised(teacher)).square()) / 2

    def _one_size(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.resize_stu:
            return F.interpolate(student, teacher.shape[2:], mode="bilinear", align_corners=False), teacher
        return student, F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
