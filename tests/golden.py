"""The inputs for which the numbers of MMRazor's own losses and connectors are known."""

import torch
from torch import Tensor


def sine(*shape: int) -> Tensor:
    """Return ``sin(1.7 k + 0.3)`` at flat index k, in float64."""
    return torch.sin(1.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.3).reshape(shape)


def cosine(*shape: int) -> Tensor:
    """Return ``cos(0.9 k + 0.5)`` at flat index k, in float64."""
    return torch.cos(0.9 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.5).reshape(shape)


S4, T4 = sine(3, 4, 2, 5), cosine(3, 4, 2, 5)
S2, T2 = 2 * sine(4, 6), 2 * cosine(4, 6)
LABELS = torch.tensor([0, 5, 2, 3])


def assert_golden(value: Tensor, expected: float) -> None:
    """Check a number against one that is known to ten decimals."""
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=1e-9)
