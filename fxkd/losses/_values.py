"""What several losses compute in the same way: full precision, rows of samples, means that stand an empty batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def full(value: Tensor) -> Tensor:
    """Give float16 and bfloat16 as float32, so that sums neither overflow nor lose their end; others as they are.

    >>> full(torch.ones(1, dtype=torch.float16)).dtype
    torch.float32
    """
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def no_autocast(value: Tensor) -> Any:
    """Make a context in which products of matrices keep the precision of ``value`` under autocast too."""
    return torch.autocast(value.device.type, enabled=False)


def rows(value: Tensor) -> Tensor:
    """Flatten all but dim 0: (N, ...) to (N, features), whatever the layout and also for N = 0."""
    return value.flatten(1) if value.ndim > 1 else value.reshape(-1, 1)


def unit(value: Tensor) -> Tensor:
    """Scale along the last axis to length 1, a length under 1e-12 counting as 1e-12; zeros stay zero.

    All zeros get their own divisor, 1, since a gradient divided by 1e-12 would drown all others.
    """
    length: Tensor = torch.linalg.vector_norm(value, dim=-1, keepdim=True)
    return value / length.clamp_min(1e-12).masked_fill(length == 0, 1.0)


def average(value: Tensor) -> Tensor:
    """Take the mean over all elements, and 0 (with a zero gradient) where there is none."""
    return value.sum() / max(value.numel(), 1)


def per_sample(value: Tensor) -> Tensor:
    """Take the sum over all elements, divided by N, and 0 (with a zero gradient) for an empty batch."""
    return value.sum() / max(value.shape[0], 1)


def nothing(*values: Tensor) -> Tensor:
    """Give what an empty batch costs: 0, with a zero gradient to each of ``values``."""
    return torch.stack([value.sum() for value in values]).sum() * 0.0


def huber(difference: Tensor) -> Tensor:
    """Return half the square where the difference is under 1, else its size less a half, element by element."""
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none")
