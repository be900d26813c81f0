"""Tests of fxkd/losses/mgd_loss.py."""

import pytest
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import MGDLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Sample by sample."""
    distances = [((s - t) ** 2).sum() for s, t in zip(student, teacher, strict=True)]
    return 2e-5 * sum(distances) / len(distances)


def test_golden() -> None:
    assert_golden(MGDLoss()(S4, T4), 0.0007916020)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "MGDLoss", "alpha_mgd": 7e-5})) is MGDLoss


@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor) -> None:
    assert_agrees(MGDLoss(alpha_mgd=4e-5), lambda s, t: 2 * formula(s, t), student, teacher)


def test_differentiable() -> None:
    assert_differentiable(MGDLoss(alpha_mgd=0.1), S2, T2)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"MGDLoss: alpha_mgd is '2e-5'; it must be a number. YAML reads"):
        MGDLoss(alpha_mgd="2e-5")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 4, 2, 1\); they must be equal"):
        MGDLoss()(S4, T4[..., :1])
