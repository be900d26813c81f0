"""Models that return nested outputs: a dict around a dataclass and a tuple, and a dataclass around the same."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass
class Parts:
    """What lies before the logits."""

    feature: Tensor  # (N, C, H, W)
    pooled: Tensor  # (N, C)


@dataclass
class Result:
    """What the dataclass variant returns."""

    logits: Tensor  # (N, classes)
    parts: Parts
    halves: tuple[Tensor, Tensor]


pytree.register_dataclass(Parts)
pytree.register_dataclass(Result)


def halve(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split the rows of images (N, C, H, W) into an upper and a lower half."""
    upper, lower = x.chunk(2, dim=2)
    return upper, lower


class Painter:
    """Covers images at random."""

    def paint(self, x: Tensor) -> dict[str, Tensor]:
        """Darken each image by its own random factor; give the image and the factor."""
        light = torch.rand(x.shape[0], 1, 1, 1, device=x.device)
        return {"image": x * light, "light": light}


class Neck(nn.Module):
    """One feature map to a tuple of two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(width, width, 3, padding=1)
        self.coarse = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(x).relu(), self.coarse(x).relu()


class OutputsDict(nn.Module):
    """Images (N, 3, H, W) to a dict with a dataclass and a tuple among its values."""

    def __init__(self, width: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3, padding=1)
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.neck = Neck(width)
        self.painter = Painter()
        self.fc = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Result:
        """Compute all that either variant returns."""
        painted = self.painter.paint(self.entry(x))
        fine, coarse = self.neck(self.stem(painted["image"]).relu())
        upper, lower = halve(fine)
        pooled = upper.mean((2, 3)) + lower.amax((2, 3)) + coarse.mean((2, 3))
        return Result(self.fc(pooled), Parts(coarse, pooled), (upper, lower))

    def forward(self, x: Tensor) -> dict[str, Tensor | Parts | tuple[Tensor, Tensor]]:
        result = self.features(x)
        return {"logits": result.logits, "parts": result.parts, "halves": result.halves}


class OutputsDataclass(OutputsDict):
    """The same model, returning a dataclass."""

    def forward(self, x: Tensor) -> Result:  # type: ignore[override]
        return self.features(x)
