"""The models of the matrix: small, with all that the specs name."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASSES = 5


def spread(x: Tensor) -> Tensor:
    """Take the mean out of each channel; called after each block."""
    return x - x.mean((2, 3), keepdim=True)


class Block(nn.Module):
    """A convolution, a norm and an activation in place, around which a shortcut goes."""

    def __init__(self, width: int, is_checkpointed: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.is_checkpointed = is_checkpointed

    def forward(self, x: Tensor) -> Tensor:
        if self.is_checkpointed:
            return x + checkpoint(self.body, x, use_reentrant=False)
        return x + self.body(x)


class Net(nn.Module):
    """Two blocks between a stem and a head."""

    def __init__(self, width: int = 4, seed: int = 0, *, is_checkpointed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(width, is_checkpointed) for _ in range(2))
        self.shared, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = spread(block(x)).add_(0.5)
        x = self.mix(x).mean((2, 3))
        x = self.shared(self.shared(x).tanh())
        return self.head(x)

    def mix(self, x: Tensor) -> Tensor:
        """Mix the rows of an image; a student can take the teacher's."""
        return 0.75 * x + 0.25 * x.flip(2)
