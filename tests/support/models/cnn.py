"""A residual CNN that works in place: ReLU after convolution and BatchNorm, and an addition into its own output."""

import torch
from torch import Tensor, nn


def squash(x: Tensor, limit: float = 3.0) -> Tensor:
    """Bound the values of ``x`` smoothly by ``limit``."""
    return limit * torch.tanh(x / limit)


class Mixer:
    """Blends the images of a batch."""

    def mix(self, x: Tensor) -> Tensor:
        """Blend each image with one drawn at random, by a share drawn at random."""
        share = torch.rand(x.shape[0], 1, 1, 1, device=x.device)
        other = torch.randperm(x.shape[0], device=x.device)
        return share * x + (1 - share) * x[other]


class Block(nn.Module):
    """Two convolutions and a shortcut; one ReLU serves twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Cnn(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes); ``entry`` has the same shape in every variant."""

    def __init__(self, width: int = 8, depth: int = 1, classes: int = 5) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 6, 3, padding=1)
        self.stem = nn.Conv2d(6, width, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.mixer = Mixer()
        self.layers = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer.mix(self.relu(self.entry(x)))
        x = squash(self.relu(self.bn(self.stem(x))))
        x = squash(self.layers(x), limit=2.0)
        return self.fc(x.mean((2, 3)))
