"""The networks of the digits example, and the mixup that both of them call in training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


class Mixup:
    """Blends each image of a batch with another one, by a share drawn at random, and their targets alike."""

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``images`` (N, 1, H, W) and ``targets`` (N, classes); two calls never draw the same."""
        share = torch.rand(images.shape[0], device=images.device)
        other = torch.randperm(images.shape[0], device=images.device)
        return blend(images, images[other], share.view(-1, 1, 1, 1)), blend(targets, targets[other], share.view(-1, 1))


def blend(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Take ``share`` of ``one`` and the rest of ``other``."""
    return share * one + (1 - share) * other


def block(channels: int, width: int, stride: int) -> nn.Sequential:
    """Make a convolution with BatchNorm and ReLU."""
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class Cnn(nn.Module):
    """Images (N, 1, 8, 8) to ``{"logits": (N, 10)}``; with labels it mixes them and gives its ``"loss"`` too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixup = Mixup()
        self.stem = block(1, width, stride=1)
        self.layer1 = block(width, 2 * width, stride=2)
        self.layer2 = block(2 * width, 4 * width, stride=1)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if labels is None:
            return {"logits": self.logits(images)}
        images, targets = self.mixup(images, F.one_hot(labels, CLASSES).to(images.dtype))
        logits = self.logits(images)
        return {"logits": logits, "loss": F.cross_entropy(logits, targets)}

    def logits(self, images: Tensor) -> Tensor:
        """Say how much each image looks like each digit."""
        features = self.layer2(self.layer1(self.stem(images)))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits
