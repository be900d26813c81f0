"""Tests of fxkd/losses/ofd_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import OFDLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Number by number."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student.flatten(), teacher.flatten(), strict=True):
        if not s <= t <= 0:
            total = total + (s - t) ** 2
    return total / len(student)


def test_golden() -> None:
    assert_golden(OFDLoss()(S4, T4), 0.0385646209)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "OFDLoss", "mul_factor": 10})) is OFDLoss


@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor) -> None:
    assert_agrees(OFDLoss(loss_weight=3, mul_factor=6), lambda s, t: formula(s, t) / 2, student, teacher)


def test_differentiable() -> None:
    assert_differentiable(OFDLoss(mul_factor=1), S2, T2)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="OFDLoss: mul_factor is '1000'; it must be a number"):
        OFDLoss(mul_factor="1000")
    with pytest.raises(SpecError, match="OFDLoss: mul_factor is 0; it divides the loss"):
        OFDLoss(mul_factor=0)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"OFDLoss: .*t_feature has shape \(3, 1, 2, 5\); they must be equal"):
        OFDLoss()(S4, T4[:, :1])
