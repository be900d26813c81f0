"""A perceptron whose train mode differs: BatchNorm, ``nn.Dropout`` and dropout called with ``self.training``."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def center(x: Tensor) -> Tensor:
    """Take the mean of the batch from ``x``."""
    return x - x.mean(0, keepdim=True)


class Noise:
    """Scales the rows of a batch by random factors."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def draw(self, x: Tensor) -> Tensor:
        """Draw one number for each row of ``x``."""
        return torch.rand(x.shape[0], 1, device=x.device)

    def scale(self, x: Tensor) -> Tensor:
        """Scale each row of ``x`` by its own factor near one."""
        return x * (1 + self.strength * self.draw(x))


class BnDropout(nn.Module):
    """Vectors (N, 12) to logits (N, classes)."""

    def __init__(self, width: int = 10, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.noise = Noise(0.5)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.bn(self.fc1(x)).relu())
        for layer in self.hidden:
            update = functional.dropout(layer(center(x)).relu(), 0.2, training=self.training)
            x = self.noise.scale(x + update)
        return self.fc(x)
