"""One module called twice in a row, one convolution used on two inputs, one function and one method called twice."""

import torch
from torch import Tensor, nn


def merge(left: Tensor, right: Tensor, share: Tensor | None = None) -> Tensor:
    """Add ``right`` to ``left``, weighted by ``share`` where it is given."""
    return left + (right if share is None else share * right)


def brighten(images: Tensor) -> Tensor:
    """Add one random number to each image."""
    return images + torch.randn(images.shape[0], 1, 1, 1, device=images.device)


class Jitter:
    """Scales the two views of a pair differently."""

    def factor(self, like: Tensor) -> Tensor:
        """Draw one factor for each row of ``like``: (N, 1, 1, 1)."""
        return 0.5 + torch.rand(like.shape[0], 1, 1, 1, device=like.device)

    def scale(self, view: Tensor) -> Tensor:
        """Scale each image by its own random factor."""
        return view * self.factor(view)


class Twice(nn.Module):
    """Two batches of images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, width: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.share = nn.Parameter(torch.rand(()))
        self.jitter = Jitter()
        self.fc = nn.Linear(width, classes)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.conv(brighten(left)), self.conv(brighten(right))
        left, right = self.jitter.scale(left), self.jitter.scale(right)
        x = merge(left, share=self.share, right=right)
        x = merge(self.block(self.block(x)), x)
        return self.fc(x.mean((2, 3)))
