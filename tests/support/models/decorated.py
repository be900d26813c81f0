"""Models whose forward is ``**kwargs`` behind decorators that prepare the keywords, with and without ``wraps``."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Output = dict[str, Tensor]


def normalise(pixels: Tensor, mean: float = 0.5, std: float = 0.25) -> Tensor:
    """Bring pixels near zero mean and unit deviation."""
    return (pixels - mean) / std


def shake(pixels: Tensor, strength: float = 0.3) -> Tensor:
    """Add noise to pixels."""
    return pixels + strength * torch.randn_like(pixels)


def with_defaults(forward: Callable[..., Output]) -> Callable[..., Output]:
    """Normalise the pixels and fill in the scale, keeping the name and signature of ``forward``."""

    @functools.wraps(forward)
    def prepared(self: nn.Module, **kwargs: Any) -> Output:
        kwargs.setdefault("scale", 2.0)
        kwargs["pixels"] = normalise(kwargs["pixels"])
        return forward(self, **kwargs)

    return prepared


def renamed(forward: Callable[..., Output]) -> Callable[..., Output]:
    """Let the pixels be called ``pixel_values``; says nothing of ``forward``."""

    def prepared(self: nn.Module, **kwargs: Any) -> Output:
        return forward(self, pixels=kwargs.pop("pixel_values"), **kwargs)

    return prepared


class Dimmer:
    """Darkens images at random."""

    def dim(self, x: Tensor) -> Tensor:
        """Scale each image by its own random factor."""
        return x * (0.3 + torch.rand(x.shape[0], 1, 1, 1, device=x.device))


class DecoratedWraps(nn.Module):
    """Keywords pixels (N, 3, H, W), labels (N,) and scale to logits and, with labels, their cross entropy."""

    def __init__(self, width: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, width, 3, padding=1)
        self.dimmer = Dimmer()
        self.fc = nn.Linear(width, classes)

    def compute(self, **kwargs: Any) -> Output:
        """Run the model on prepared keywords."""
        x = self.dimmer.dim(self.entry(shake(kwargs["pixels"], strength=0.5)))
        x = normalise(self.conv(x).relu(), mean=0.1).mean((2, 3))
        logits = kwargs["scale"] * self.fc(x)
        labels = kwargs.get("labels")
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    @with_defaults
    def forward(self, **kwargs: Any) -> Output:
        return self.compute(**kwargs)


class DecoratedPlain(DecoratedWraps):
    """The same model behind both decorators: what can be seen of its forward is ``**kwargs`` only."""

    @renamed
    @with_defaults
    def forward(self, **kwargs: Any) -> Output:
        return self.compute(**kwargs)
