"""Tests of fxkd/losses/dist_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import DISTLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable, assert_finite, value_and_gradients


def correlations(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """By covariance and variances; the 1e-8 of the definition is that of lengths, so times the count here."""
    found = []
    for x, y in zip(left, right, strict=True):
        covariance = (x * y).mean() - x.mean() * y.mean()
        spread = ((x * x).mean() - x.mean() ** 2).sqrt() * ((y * y).mean() - y.mean() ** 2).sqrt()
        found.append(covariance / (spread + 1e-8 / len(x)))
    return sum(found) / torch.tensor(len(found))


def formula(student: Tensor, teacher: Tensor, tau: float, inter: float, intra: float) -> Tensor:
    a, b = (x.div(tau).exp() / x.div(tau).exp().sum(1, keepdim=True) for x in (student, teacher))
    over_classes = 1 - correlations(list(a), list(b))
    over_samples = 1 - correlations([a[:, c] for c in range(a.shape[1])], [b[:, c] for c in range(b.shape[1])])
    return tau * tau * (inter * over_classes + intra * over_samples)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.6581568460),
        ({"inter_loss_weight": 1, "intra_loss_weight": 2, "tau": 4, "loss_weight": 3}, 163.2913425276),
    ],
)
def test_golden(options: dict[str, Any], expected: float) -> None:
    assert_golden(DISTLoss(**options)(S2, T2), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "DISTLoss", "tau": 4})) is DISTLoss


@pytest.mark.parametrize(("inter", "intra"), [(1, 2), (0.5, 0), (0, 1)])
def test_agrees_with_the_formula(inter: float, intra: float) -> None:
    loss = DISTLoss(inter, intra, tau=2, loss_weight=3, teacher_detach=False)
    assert_agrees(loss, lambda s, t: 3 * formula(s, t, 2, inter, intra), S2, T2)


def test_the_teacher_is_detached_unless_told_otherwise() -> None:
    assert not value_and_gradients(DISTLoss(), S2, T2)[2].any()
    assert_differentiable(DISTLoss(tau=2, teacher_detach=False), S2, T2)


def test_constant_logits_correlate_with_nothing() -> None:
    zeros = torch.zeros(4, 6, dtype=torch.float64)
    loss = DISTLoss(teacher_detach=False)
    torch.testing.assert_close(loss(zeros, zeros), torch.tensor(2.0, dtype=torch.float64))
    assert_finite(loss, zeros, T2)
    assert_finite(loss, zeros, zeros)


def test_one_sample_has_no_others() -> None:
    torch.testing.assert_close(DISTLoss(inter_loss_weight=0)(S2[:1], T2[:1]), torch.tensor(1.0, dtype=torch.float64))
    assert_finite(DISTLoss(teacher_detach=False), S2[:1], T2[:1])


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="DISTLoss: inter_loss_weight is 'a'; it must be a number"):
        DISTLoss(inter_loss_weight="a")
    with pytest.raises(SpecError, match="DISTLoss: tau is 0; a temperature must be above 0"):
        DISTLoss(tau=0)
    with pytest.raises(SpecError, match="DISTLoss: teacher_detach is None; it can be True, False"):
        DISTLoss(teacher_detach=None)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"logits_T has shape \(4, 5\); they must be equal"):
        DISTLoss()(S2, T2[:, :5])
    with pytest.raises(SpecError, match=r"logits_S has shape \(3, 4, 2, 5\); it takes logits \(N, C\)"):
        DISTLoss()(S4, T4)
