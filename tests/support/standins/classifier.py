"""Image classifiers as mmcls puts them together: backbone, neck and head, and a loss where there are labels."""

from typing import Any

import torch
from torch import Tensor, nn

Samples = dict[str, Tensor]
Losses = dict[str, Any]


class GlobalAveragePooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gap = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pooled = tuple(self.gap(feature) for feature in features)
        return tuple(out.view(out.size(0), -1) for out in pooled)


class LabelLoss(nn.Module):
    """Cross entropy with labels."""

    def __init__(self, label_smoothing: float = 0.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.label_smoothing, self.loss_weight = label_smoothing, loss_weight

    def forward(self, cls_score: Tensor, label: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(cls_score, label, label_smoothing=self.label_smoothing)
        return self.loss_weight * loss


class LinearClsHead(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
        self.loss_module = LabelLoss()

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.fc(features[-1])  # type: ignore[no-any-return]

    def loss(self, features: tuple[Tensor, ...], data_samples: Samples) -> Losses:
        score, label = self(features), data_samples["gt_label"]
        accuracy = (score.argmax(dim=1) == label).float().mean()
        return {"loss": self.loss_module(score, label), "accuracy_top-1": accuracy}


class ImageClassifier(nn.Module):
    """Give logits, or with data samples a dict of losses and of what is only looked at."""

    def __init__(self, backbone: nn.Module, head: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, inputs: Tensor, data_samples: Samples | None = None) -> Any:
        features = self.backbone(inputs)
        if self.neck is not None:
            features = self.neck(features)
        if data_samples is None:
            return self.head(features)
        return self.head.loss(features, data_samples)


def classifier(backbone: nn.Module, in_channels: int, num_classes: int) -> ImageClassifier:
    """Put global pooling and one linear layer behind a backbone."""
    return ImageClassifier(backbone, LinearClsHead(in_channels, num_classes), GlobalAveragePooling())


def labelled(count: int, side: int, classes: int, seed: int = 0) -> tuple[Tensor, Samples]:
    """Make images (count, 3, side, side) and their labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=generator)
    return images, {"gt_label": torch.randint(classes, (count,), generator=generator)}
