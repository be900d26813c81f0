"""Tests of fxkd/losses/ft_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import FTLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable, assert_finite


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Sample by sample."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student, teacher, strict=True):
        total = total + (s / (s * s).sum() ** 0.5 - t / (t * t).sum() ** 0.5).abs().sum()
    return total / student.numel()


def test_golden() -> None:
    assert_golden(FTLoss()(S4, T4), 0.1808177145)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "FTLoss", "loss_weight": 1000})) is FTLoss


@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor) -> None:
    assert_agrees(FTLoss(loss_weight=7), lambda s, t: 7 * formula(s, t), student, teacher)


def test_differentiable() -> None:
    assert_differentiable(FTLoss(), S2, T2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_dead_sample(dtype: torch.dtype) -> None:
    dead = S4.to(dtype).clone()
    dead[1] = 0
    assert_finite(FTLoss(), dead, T4.to(dtype))
    assert_finite(FTLoss(), T4.to(dtype), dead)


def test_a_faint_sample_is_divided_by_the_floor() -> None:
    faint = 1e-14 * S2
    expected = (faint / 1e-12 - torch.nn.functional.normalize(T2)).abs().mean()
    torch.testing.assert_close(FTLoss()(faint, T2), expected)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="FTLoss: loss_weight is '1'; it must be a number"):
        FTLoss(loss_weight="1")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"FTLoss: .*t_feature has shape \(3, 2, 2, 5\); they must be equal"):
        FTLoss()(S4, T4[:, :2])
