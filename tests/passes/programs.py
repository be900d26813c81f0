"""Random small programs with in-place work, views and records, drawn by hypothesis."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

OPERATIONS = (
    "add", "mul", "relu", "clone", "view", "row", "column", "transpose", "tap", "add_", "mul_", "relu_", "set_row",
    "copy_", "out", "layer", "inplace_layer", "buffer", "detached_add_",
)  # fmt: skip
STEP = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 7), st.integers(0, 7))
STEPS = st.lists(STEP, min_size=1, max_size=12)
RETURNED = st.lists(st.integers(0, 7), min_size=1, max_size=2)


class Program(nn.Module):
    """Work on a pool of (3, 3) tensors; each ``tap`` is a module of its own, the point of a record."""

    def __init__(self, steps: list[tuple[str, int, int]], returned: list[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.returned = steps, returned
        self.layer = nn.Linear(3, 3).double()
        self.inplace_layer = nn.ReLU(inplace=True)
        self.register_buffer("count", torch.zeros(3, 3, dtype=torch.float64))
        self.taps = nn.ModuleList(nn.Identity() for step, _, _ in steps if step == "tap")

    def forward(self, x: Tensor) -> list[Tensor]:
        pool, taps = [x * 2, x + 1], iter(self.taps)
        for step, first, second in self.steps:
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            made = self._step(step, a, b, taps)
            if made is not None:
                pool.append(made)
        return [pool[index % len(pool)] for index in self.returned]

    def _step(self, step: str, a: Tensor, b: Tensor, taps: Any) -> Tensor | None:
        match step:
            case "add" | "mul":
                return getattr(torch, step)(a, b)
            case "relu" | "clone":
                return getattr(a, step)()
            case "view":
                return a.view_as(a)
            case "row":
                return a[:1].expand(3, 3).clone() if a._is_view() else a[:]
            case "column":
                a[:, 0].sub_(1)
            case "transpose":
                return a.t()
            case "tap":
                return next(taps)(a)
            case "add_" | "mul_":
                getattr(a, step)(b.clone())
            case "relu_":
                functional.relu(a, inplace=True)
            case "set_row":
                a[1] = b[0].clone()
            case "copy_":
                a.copy_(b.clone())
            case "out":
                torch.sub(b.detach().clone(), 1, out=a.detach())
            case "layer":
                return self.layer(a)
            case "inplace_layer":
                self.inplace_layer(a)
            case "buffer":
                self.count.add_(a.detach())
            case "detached_add_":
                a.detach().add_(0.5)
        return None
