"""A loss, a connector and a head that fxkd does not have: they are found by name once this file is imported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd


@fxkd.loss("CosineDistance")
class CosineDistance(nn.Module):
    """One minus the cosine of the angle between two features, by sample."""

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(s_feature.flatten(1), t_feature.flatten(1))).mean()


@fxkd.connector("GatedConnector")
class GatedConnector(nn.Module):
    """A 1 x 1 convolution whose channels are gated by what the whole map holds."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.align, self.gate = nn.Conv2d(before, after, 1), nn.Linear(before, after)

    def forward(self, feature: Tensor) -> Tensor:
        share = self.gate(feature.mean((2, 3))).sigmoid()
        return self.align(feature) * share[:, :, None, None]


@fxkd.head("ProjectionHead")
class ProjectionHead(nn.Module):
    """Project both values into a common space, and compare them by any loss."""

    def __init__(self, student_width: int, teacher_width: int, width: int, loss: dict[str, object]) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(student_width, width), nn.Linear(teacher_width, width)
        nn.init.orthogonal_(self.teacher.weight)
        self.teacher.requires_grad_(False)
        self.loss = fxkd.losses.build(loss)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        distance: Tensor = self.loss(self.student(student), self.teacher(teacher))
        return distance


class Net(nn.Module):
    """Images (N, 3, H, W) to logits (N, 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True)
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.flat(self.pool(self.act(self.stem(images)))))
        return logits


def models() -> tuple[Net, Net]:
    """Give the student and the teacher, always with the same weights."""
    torch.manual_seed(0)
    return Net(8), Net(16)
