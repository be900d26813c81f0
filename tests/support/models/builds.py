"""A model that builds modules inside its forward, and adds an int drawn from Python's generator to a convolution."""

import random

from torch import Tensor, nn
from torch.nn import functional


def sharpen(x: Tensor, power: float) -> Tensor:
    """Raise what is positive in ``x`` to ``power``."""
    return x.clamp(min=1e-3) ** power


class Offset:
    """Numbers from Python's own generator."""

    def __init__(self, span: int) -> None:
        self.span = span

    def draw(self) -> int:
        """Draw an int between ``-span`` and ``span``."""
        return random.randint(-self.span, self.span)

    def apply(self, x: Tensor) -> Tensor:
        """Add a number drawn anew to ``x``."""
        return x + self.draw()


class Builds(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, width: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.offset = Offset(9)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.GELU()(self.offset.apply(self.conv1(x)))
        x = functional.avg_pool2d(functional.layer_norm(x, x.shape[1:]), 2)
        attention = nn.Softmax(dim=-1)(self.conv2(x).flatten(2))
        pooled = (sharpen(x.flatten(2), 0.5) * attention).sum(-1)
        return self.fc(sharpen(functional.silu(pooled), power=2.0))
