"""Sums over the processes of torch.distributed, with their gradient."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum ``value`` over all ranks; what comes back through it is summed over them too.

    Where torch.distributed is not initialised, or has one rank, it is ``value`` itself.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    total: Tensor = _SumOverRanks.apply(value)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """An all-reduce whose backward is one."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _reduced(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _reduced(gradient)


def _reduced(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total
