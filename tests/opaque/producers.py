"""Functions that run on values alone, one for each kind of result, and a model that works on what one of them gives."""

import random
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def whole_number(x: Tensor) -> int:
    return int((x > 0).sum())


def real_number(x: Tensor) -> float:
    return float(x.detach().abs().max())


def drawn_number(x: Tensor) -> int:
    return random.randint(1, 9)


def array(x: Tensor) -> np.ndarray[Any, Any]:
    return (x.detach().numpy() > np.random.rand()).astype(np.float32)


def nothing(x: Tensor) -> None:
    return None if float(x.detach().sum()) < 1e9 else x  # type: ignore[return-value]


def nested(x: Tensor) -> dict[str, Any]:
    order = torch.as_tensor(np.argsort(x.detach().numpy(), axis=1).copy())
    return {"order": order, "pair": (order[:, :2].clone(), None), "all": [order.sum(1), "text"]}


def chosen(x: Tensor) -> Tensor:
    return torch.tensor([row for row, value in enumerate(x[:, 0].tolist()) if value > -0.3] or [0])


def found(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x.detach() > 0.2).nonzero().unbind(1)


def itself(x: Tensor) -> Tensor:
    if float(x.detach().sum()) < 1e9:
        x.detach().clamp_(max=float(np.random.rand()) + 0.5)
    return x


class Net(nn.Module):
    """Asks one producer, by its name, for a value made of its input."""

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.kind, self.fc, self.head = kind, nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.fc(x).tanh()
        given = x.clone() if self.kind == "itself" else h.detach() if self.kind != "attended" else h
        logits = self.head(h)
        value = getattr(sys.modules[__name__], self.kind)(given)
        loss = getattr(sys.modules[__name__], f"use_{self.kind}")(value, logits)
        return {"logits": logits, "loss": loss}


def use_whole_number(value: int, logits: Tensor) -> Tensor:
    return logits.square().mean() * value + 2 * value


def use_real_number(value: float, logits: Tensor) -> Tensor:
    return (logits * value).square().mean() + 1 / (1 + value)


use_drawn_number = use_whole_number


def use_array(value: Any, logits: Tensor) -> Tensor:
    return (torch.as_tensor(value)[:, :3] * logits).square().mean()


def use_nothing(value: None, logits: Tensor) -> Tensor:
    return logits.square().mean() if value is None else logits.sum()


def use_nested(value: dict[str, Any], logits: Tensor) -> Tensor:
    first, absent = value["pair"]
    weight = value["order"][:, :3] + first[:, :1] + value["all"][0][:, None]
    return (weight * logits).square().mean() if absent is None else logits.sum()


def use_chosen(value: Tensor, logits: Tensor) -> Tensor:
    return logits[value].square().sum() / value.numel()


def use_found(value: tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
    rows, columns = value
    return (logits[rows] * columns[:, None]).square().sum()


def use_itself(value: Tensor, logits: Tensor) -> Tensor:
    return (logits * value[:, :3]).square().mean()
