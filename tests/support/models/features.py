"""A detector-like model: the backbone returns a list of feature maps, the neck takes the list and writes into it."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bring ``x`` to the height and width of ``like``."""
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


class Reweight:
    """Weighs the levels of a pyramid at random."""

    def __call__(self, levels: list[Tensor]) -> list[Tensor]:
        """Draw one weight (N, 1, 1, 1) for each level."""
        return [torch.rand(level.shape[0], 1, 1, 1, device=level.device) for level in levels]

    def fade(self, level: Tensor) -> Tensor:
        """Scale each map of a level by its own random factor."""
        return level * (0.5 + torch.rand(level.shape[0], 1, 1, 1, device=level.device))


class Backbone(nn.Module):
    """Images (N, 3, H, W) to three maps of H, H/2 and H/4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, 1 + (i > 0), 1) for i in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for stage in self.stages:
            x = stage(x).relu()
            levels.append(x)
        return levels


class Neck(nn.Module):
    """Adds the coarse levels to the finer ones, writing into the list it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(width, width, 1)
        self.reweight = Reweight()

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        levels[2] = self.reweight.fade(self.lateral(levels[2]))
        levels[1] = self.lateral(levels[1]) + resize(levels[2], like=levels[1])
        levels[0] = self.reweight.fade(self.lateral(levels[0]) + resize(levels[1], like=levels[0]))
        return [weight * level for weight, level in zip(self.reweight(levels), levels, strict=True)]


class Features(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, width: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        self.neck = Neck(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.neck(self.backbone(x))
        return self.fc(sum(level.mean((2, 3)) for level in levels))
