"""Forwards that look at a size in every way that Python offers; each is wrong at 5 if what it saw at 2 is kept."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

ROWS = [float(index) for index in range(8)]
BY_SIZE = {2: 0.25, 5: 4.0}
BY_NAME = {"2": 0.25, "5": 4.0}

Decide = Callable[[Tensor], Tensor]

FREE: dict[str, Decide] = {
    "add": lambda h: h * (h.shape[0] + 1),
    "divide": lambda h: h / h.shape[0],
    "floor_divide": lambda h: h * (7 // h.shape[0]),
    "modulo": lambda h: h * (h.shape[0] % 4),
    "power": lambda h: h * h.shape[0] ** 0.5,
    "reflected_power": lambda h: h * 2 ** h.size(0),
    "negative": lambda h: h * -h.shape[0],
    "numel": lambda h: h * h.numel(),
    "view": lambda h: h.reshape(h.shape[0] * 2, -1).reshape(h.shape),
    "arange": lambda h: h * torch.arange(h.shape[0], dtype=h.dtype)[:, None],
    "full": lambda h: h * torch.full((1,), h.shape[0], dtype=h.dtype),
    "slice": lambda h: h * h[h.shape[0] // 2 :].sum(),
    "sum": lambda h: h * sum(h.shape),
    "product": lambda h: h * math.prod(h.shape),
    "size_of_one": lambda h: h * h.size(dim=0),
    "new_tensor": lambda h: h * h.new_tensor([h.shape[0], 1.0, 1.0, 1.0]),
    "tensor": lambda h: h * torch.tensor(h.shape[0]),
}

GUARDED: dict[str, Decide] = {
    "divided_float": lambda h: h * (1.0 / h.shape[0]),  # a float asks no int for its own method
    "multiplied_float": lambda h: h * (0.5 * h.shape[0]),
    "compared_float": lambda h: h * 2 if 3.5 < h.shape[0] else h,  # noqa: SIM300
    "greater": lambda h: h * 2 if h.shape[0] > 3 else h,
    "reflected": lambda h: h * 2 if 3 < h.shape[0] else h,  # noqa: SIM300
    "chain": lambda h: h * 2 if 0 < h.shape[0] < 3 else h,
    "equal": lambda h: h * 2 if h.shape[0] == 2 else h,
    "unequal": lambda h: h * 2 if h.shape[0] != 2 else h,
    "computed": lambda h: h * 2 if h.shape[0] * 2 - 1 >= 5 else h,
    "even": lambda h: h * 2 if h.shape[0] % 2 == 0 else h,
    "truth": lambda h: h * 2 if h.shape[0] - 2 else h,
    "not": lambda h: h * 2 if not h.shape[0] - 2 else h,
    "int": lambda h: h * int(h.shape[0]),
    "float": lambda h: h * float(h.shape[0]),
    "range": lambda h: sum((h * (k + 1) for k in range(h.shape[0])), start=h),
    "len": lambda h: h * len(h),
    "same_shape": lambda h: h * 2 if h.shape == torch.empty(2, 4).shape else h,
    "shape_is_tuple": lambda h: h * 2 if tuple(h.shape) == (2, 4) else h,
    "in_tuple": lambda h: h * 2 if h.shape[0] in (1, 2) else h,
    "in_set": lambda h: h * 2 if h.shape[0] in {1, 2} else h,
    "not_in_set": lambda h: h * 2 if h.shape[0] in {1, 5} else h,
    "max": lambda h: h * max(h.shape[0], 3),
    "min": lambda h: h * min(3, h.shape[0]),
    "unbind": lambda h: torch.stack([row * k for k, row in enumerate(h.unbind(0))]),
    "iterate": lambda h: torch.stack([row * k for k, row in enumerate(h)]),
    "split": lambda h: torch.cat([part * k for k, part in enumerate(h.split(2))]),
    "torch_split": lambda h: torch.cat([part * k for k, part in enumerate(torch.split(h, 2))]),
    "chunk": lambda h: torch.cat([part * k for k, part in enumerate(h.chunk(4))]),
    "round": lambda h: h * round(h.shape[0] / 2),
    "ceil": lambda h: h * math.ceil(h.shape[0] / 2),
    "divmod": lambda h: h * divmod(h.shape[0], 2)[0],
    "bits": lambda h: h * (h.shape[0] & 1),
    "shift": lambda h: h * (h.shape[0] << 1),
    "reflected_shift": lambda h: h * (1 << h.shape[0]),
    "reflected_bits": lambda h: h * (4 | h.shape[0]),
    "bit_length": lambda h: h * (h.shape[0] - 1).bit_length(),
    "absolute": lambda h: h * abs(h.shape[0] - 3),
    "is_integer": lambda h: h * 2 if (h.shape[0] / 2).is_integer() else h,
    "sqrt": lambda h: h * math.sqrt(h.shape[0]),
    "sqrt_of_float": lambda h: h * math.sqrt(h.shape[0] / 2),
    "log": lambda h: h * math.log(h.shape[0]),
    "log_of_float": lambda h: h * math.log(h.shape[0] / 2),
    "log2": lambda h: h * math.log2(h.shape[0]),
    "pow": lambda h: h * math.pow(h.shape[0], 2),
    "gcd": lambda h: h * math.gcd(h.shape[0], 4),
    "isqrt": lambda h: h * math.isqrt(h.shape[0]),
    "list_index": lambda h: h * ROWS[h.shape[0]],
    "list_slice": lambda h: h * sum(ROWS[: h.shape[0]]),
    "repeated_list": lambda h: h * sum([1.5] * h.shape[0]),
    "repeated_string": lambda h: h * len("x" * h.shape[0]),
    "dict": lambda h: h * BY_SIZE[h.shape[0]],
    "dict_get": lambda h: h * {5: 4.0}.get(h.shape[0], 1.0),
    "string": lambda h: h * BY_NAME[str(h.shape[0])],
    "format": lambda h: h * BY_NAME[f"{h.shape[0]}"],
    "percent": lambda h: h * BY_NAME["%d" % h.shape[0]],  # noqa: UP031
    "size_numel": lambda h: h * h.shape.numel(),
    "part_numel": lambda h: h * h.shape[:1].numel(),
    "numpy_product": lambda h: h * float(np.prod(h.shape)),
    "numpy_array": lambda h: h * float(np.arange(h.shape[0]).sum()),
    "islice": lambda h: h * sum(itertools.islice(ROWS, h.shape[0])),
    "repeat": lambda h: h * sum(itertools.repeat(1.5, h.shape[0])),
    "broadcast_shapes": lambda h: h * torch.broadcast_shapes(h.shape, (1, 4))[0],
    "sorted": lambda h: h * sorted([h.shape[0], 3])[0],
    "stride": lambda h: h * 2 if h.t().contiguous().stride(0) == 2 else h,
    "match": lambda h: _matched(h),
    "complex": lambda h: h * abs(complex(h.shape[0], 0)),
    "is": lambda h: h * 2 if operator_index(h) == 2 else h,
}


def operator_index(h: Tensor) -> int:
    return h.shape[0].__index__()


def _matched(h: Tensor) -> Tensor:
    match h.shape[0]:
        case 2:
            return h * 2
        case _:
            return h


class Decision(nn.Module):
    """A BatchNorm and a dropout before the decision: neither may move twice when another graph is tried."""

    def __init__(self, decide: Decide) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(4, 3)
        self.decide = decide

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.decide(self.dropout(self.norm(x))))
