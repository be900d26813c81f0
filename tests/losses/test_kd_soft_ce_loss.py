"""Tests of fxkd/losses/kd_soft_ce_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import KDSoftCELoss, KLDivergence
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    value_and_gradients,
)

WEIGHT = torch.tensor([0.5, 0.0, 2.0, 1.0], dtype=torch.float64)


def costs(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Sample by sample and class by class."""
    found = []
    for s, t in zip(student / tau, teacher / tau, strict=True):
        total_s, total_t = s.exp().sum(), t.exp().sum()
        found.append(sum(t[c].exp() / total_t * (total_s.log() - s[c]) for c in range(len(s))))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.8974810293),
        ({"tau": 3}, 17.2236092383),
        ({"tau": 3, "mult_tem_square": False}, 1.9137343598),
        ({"tau": 3, "reduction": "sum"}, 68.8944369534),
    ],
)
def test_golden(options: dict[str, Any], expected: float) -> None:
    assert_golden(KDSoftCELoss(**options)(S2, T2), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "KDSoftCELoss", "reduction": "sum"})) is KDSoftCELoss


def test_agrees_with_the_formula() -> None:
    loss = KDSoftCELoss(tau=3, loss_weight=0.5, reduction="none")
    assert_agrees(loss, lambda s, t: 4.5 * costs(s, t, 3), S2, T2)
    loss = KDSoftCELoss(tau=3, mult_tem_square=False)
    assert_agrees(loss, lambda s, t: costs(s, t, 3).sum() / 4, S2, T2)


def test_weights_and_divisors() -> None:
    loss = KDSoftCELoss(tau=2)
    weighted = 4 * WEIGHT * costs(S2, T2, 2)
    torch.testing.assert_close(loss(S2, T2, WEIGHT), weighted.sum() / 4)
    torch.testing.assert_close(loss(S2, T2, WEIGHT, avg_factor=3.5), weighted.sum() / 3.5)
    torch.testing.assert_close(loss(S2, T2, WEIGHT, avg_factor=WEIGHT.sum()), weighted.sum() / 3.5)
    torch.testing.assert_close(loss(S2, T2, WEIGHT, reduction_override="sum"), weighted.sum())
    torch.testing.assert_close(loss(S2, T2, WEIGHT, 3.5, "none"), weighted)
    summing = KDSoftCELoss(tau=2, reduction="sum")
    torch.testing.assert_close(summing(S2, T2, avg_factor=2, reduction_override="mean"), 2 * costs(S2, T2, 2).sum())


@pytest.mark.parametrize("avg_factor", [0, torch.tensor(0.0)])
def test_no_weight_at_all_costs_nothing(avg_factor: Any) -> None:
    assert_costs_nothing(lambda s, t: KDSoftCELoss()(s, t, 0 * WEIGHT, avg_factor), S2, T2)


def test_classes_lie_in_the_last_axis() -> None:
    value = KDSoftCELoss(tau=2)(S4, T4)
    torch.testing.assert_close(value, KDSoftCELoss(tau=2)(S4.reshape(-1, 5), T4.reshape(-1, 5)))
    assert KDSoftCELoss(reduction="none")(S4, T4).shape == (3, 4, 2)


def test_the_gradient_is_that_of_the_divergence() -> None:
    torch.testing.assert_close(
        value_and_gradients(KDSoftCELoss(tau=3), S2, T2)[1], value_and_gradients(KLDivergence(tau=3), S2, T2)[1]
    )


def test_differentiable() -> None:
    assert_differentiable(KDSoftCELoss(tau=2), S2, T2)


def test_impossible_classes_and_far_apart_logits_stay_finite() -> None:
    masked_s, masked_t = S2.clone(), T2.clone()
    masked_s[:, 2] = masked_t[:, 2] = -torch.inf
    rest = torch.tensor([0, 1, 3, 4, 5])
    value, student, _ = value_and_gradients(KDSoftCELoss(), masked_s, masked_t)
    expected = value_and_gradients(KDSoftCELoss(), S2[:, rest], T2[:, rest])
    torch.testing.assert_close([value, student[:, rest]], expected[:2])
    assert_finite(KDSoftCELoss(), 1000 * S2.float(), 1000 * T2.float())


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"KDSoftCELoss: reduction is None; it can be 'none', 'mean', 'sum'\."):
        KDSoftCELoss(reduction=None)
    with pytest.raises(SpecError, match=r"tau is -1; a temperature must be above 0"):
        KDSoftCELoss(tau=-1)
    with pytest.raises(SpecError, match="mult_tem_square is 'yes'; it can be True, False"):
        KDSoftCELoss(mult_tem_square="yes")
    with pytest.raises(SpecError, match=r"reduction_override is 'batchmean'; it can be None, 'none', 'mean', 'sum'"):
        KDSoftCELoss()(S2, T2, reduction_override="batchmean")
    with pytest.raises(SpecError, match="avg_factor divides a mean, and the reduction is 'sum'"):
        KDSoftCELoss(reduction="sum")(S2, T2, avg_factor=3)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(4, 5\); they must be equal"):
        KDSoftCELoss()(S2, T2[:, :5])
    with pytest.raises(SpecError, match=r"weight has shape \(4, 6\); it takes one number a sample, of shape \(4,\)"):
        KDSoftCELoss()(S2, T2, torch.ones(4, 6))
    with pytest.raises(SpecError, match=r"weight is 2; it takes one number a sample, of shape \(4,\)"):
        KDSoftCELoss()(S2, T2, 2)
