"""Tests of fxkd/losses/cross_entropy_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import CrossEntropyLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Sample by sample."""
    costs = []
    for s, t in zip(student, teacher.tolist(), strict=True):
        costs.append(s.exp().sum().log() - s[t.index(max(t))])
    return sum(costs) / torch.tensor(len(costs))


def test_golden() -> None:
    assert_golden(CrossEntropyLoss()(S2, T2), 3.0275664498)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "CrossEntropyLoss"})) is CrossEntropyLoss


def test_agrees_with_the_formula() -> None:
    assert_agrees(CrossEntropyLoss(loss_weight=3), lambda s, t: 3 * formula(s, t), S2, T2)


def test_differentiable() -> None:
    assert_differentiable(CrossEntropyLoss(), S2, T2)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="CrossEntropyLoss: loss_weight is None; it must be a number"):
        CrossEntropyLoss(loss_weight=None)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(4, 5\); they must be equal"):
        CrossEntropyLoss()(S2, T2[:, :5])
    with pytest.raises(SpecError, match=r"preds_S has shape \(3, 4, 2, 5\); it takes logits \(N, C\)"):
        CrossEntropyLoss()(S4, T4)
