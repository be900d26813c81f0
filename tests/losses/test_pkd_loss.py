"""Tests of fxkd/losses/pkd_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import PKDLoss
from tests.golden import S2, S4, T2, T4, assert_golden, sine
from tests.losses.agreement import (
    assert_agrees,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
)

WIDE = sine(3, 4, 4, 10)


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Channel by channel, by sums of products."""
    total = torch.zeros((), dtype=student.dtype)
    for c in range(student.shape[1]):
        s, t = student[:, c].flatten(), teacher[:, c].flatten()
        count = len(s)
        s, t = s - s.sum() / count, t - t.sum() / count
        length_s, length_t = ((x @ x / (count - 1)) ** 0.5 + 1e-6 for x in (s, t))
        total = total + s @ s / length_s**2 + t @ t / length_t**2 - 2 * (s @ t) / (length_s * length_t)
    return total / student.numel() / 2


def larger(feature: Tensor) -> Tensor:
    """Twice as high and wide, by the weights of bilinear interpolation between the centres of cells."""
    for axis in (2, 3):
        before = torch.cat([feature.narrow(axis, 0, 1), feature.narrow(axis, 0, feature.shape[axis] - 1)], axis)
        after = torch.cat([feature.narrow(axis, 1, feature.shape[axis] - 1), feature.narrow(axis, -1, 1)], axis)
        pairs = torch.stack([0.75 * feature + 0.25 * before, 0.75 * feature + 0.25 * after], axis + 1)
        feature = pairs.flatten(axis, axis + 1)
    return feature


@pytest.mark.parametrize(
    ("student", "teacher", "options", "expected"),
    [
        (S4, T4, {}, 0.9565496800),
        (WIDE, T4, {}, 0.9640012618),
        (WIDE, T4, {"resize_stu": False}, 0.9924335007),
        ((S4, WIDE), (T4, T4), {}, 1.9205509418),
    ],
)
def test_golden(student: Any, teacher: Any, options: dict[str, Any], expected: float) -> None:
    assert_golden(PKDLoss(**options)(student, teacher), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "PKDLoss", "resize_stu": False})) is PKDLoss


def test_agrees_with_the_formula() -> None:
    assert_agrees(PKDLoss(loss_weight=6), lambda s, t: 6 * formula(s, t), S4, T4)
    assert_agrees(PKDLoss(resize_stu=False), lambda s, t: formula(s, larger(t)), WIDE, T4)
    assert_agrees(PKDLoss(), lambda s, t: formula(larger(s), t), T4, WIDE)


def test_levels_add_up() -> None:
    def both(s: Tensor, t: Tensor) -> Tensor:
        return PKDLoss()([s, s[:, :2]], (t, t[:, 1:3]))

    assert_agrees(both, lambda s, t: formula(s, t) + formula(s[:, :2], t[:, 1:3]), S4, T4)


def test_a_size_that_differs_in_width_alone() -> None:
    narrow = T4[..., :3]
    resized = F.interpolate(S4, (2, 3), mode="bilinear", align_corners=False)
    torch.testing.assert_close(PKDLoss()(S4, narrow), formula(resized, narrow))


def test_differentiable() -> None:
    assert_differentiable(PKDLoss(), S4[:2, :2], T4[:2, :2])
    assert_differentiable(PKDLoss(), WIDE[:1, :1], T4[:1, :1])


def test_a_constant_channel_has_a_finite_gradient() -> None:
    dead = S4.clone()
    dead[:, 1] = 7
    for student, teacher in ((dead, T4), (T4, dead), (dead, dead)):
        assert_finite(PKDLoss(), student, teacher)
    torch.testing.assert_close(PKDLoss()(dead, T4), formula(dead, T4))


def test_one_number_a_channel_has_no_deviation() -> None:
    assert_costs_nothing(PKDLoss(), S4[:1, :, :1, :1], T4[:1, :, :1, :1])


def test_levels_without_samples_cost_nothing() -> None:
    assert_costs_nothing(lambda s, t: PKDLoss()([s, s], [t, t]), S4[:0], T4[:0])


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="PKDLoss: resize_stu is 'no'; it can be True, False"):
        PKDLoss(resize_stu="no")
    with pytest.raises(SpecError, match="PKDLoss: loss_weight is '6'; it must be a number"):
        PKDLoss(loss_weight="6")


def test_wrong_values() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 2, 2, 5\); N and C must be equal"):
        PKDLoss()(S4, T4[:, :2])
    with pytest.raises(SpecError, match=r"preds_S has shape \(4, 6\); it takes maps \(N, C, H, W\)"):
        PKDLoss()(S2, T2)
    with pytest.raises(SpecError, match="preds_S has 2 levels and preds_T has 1; give both as many"):
        PKDLoss()([S4, S4], [T4])
    with pytest.raises(SpecError, match="preds_S has 0 levels and preds_T has 0"):
        PKDLoss()([], [])
    with pytest.raises(SpecError, match="preds_T is a dict; it takes a tensor, or a list or tuple of them"):
        PKDLoss()([S4], {"p3": T4})
    with pytest.raises(SpecError, match="preds_T is a NoneType, not a tensor"):
        PKDLoss()([S4], [None])
