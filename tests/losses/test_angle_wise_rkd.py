"""Tests of fxkd/losses/angle_wise_rkd.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import AngleWiseRKD
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_costs_nothing, assert_differentiable, assert_finite

WITH_NORM = pytest.mark.parametrize("with_l2_norm", [True, False])


def cosines(samples: Tensor, with_l2_norm: bool) -> list[Tensor]:
    """By the law of cosines, triple by triple; 0 where two of the three are one."""
    points = [x / (x * x).sum() ** 0.5 if with_l2_norm else x for x in samples.flatten(1)]
    found = []
    for i, corner in enumerate(points):
        for j, one in enumerate(points):
            for k, other in enumerate(points):
                if i in (j, k):
                    found.append(0 * corner.sum())
                    continue
                a, b = ((x - corner).square().sum() for x in (one, other))
                c = (one - other).square().sum()
                found.append((a + b - c) / (2 * (a * b) ** 0.5))
    return found


def formula(student: Tensor, teacher: Tensor, with_l2_norm: bool) -> Tensor:
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(*(cosines(x, with_l2_norm) for x in (student, teacher)), strict=True):
        z = (s - t).abs()
        total = total + (z * z / 2 if z < 1 else z - 0.5)
    return total / len(student) ** 3


@pytest.mark.parametrize(("with_l2_norm", "expected"), [(True, 8.3388276740), (False, 7.4325821966)])
def test_golden(with_l2_norm: bool, expected: float) -> None:
    assert_golden(AngleWiseRKD(with_l2_norm=with_l2_norm)(S2, T2), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "AngleWiseRKD", "loss_weight": 5})) is AngleWiseRKD


@WITH_NORM
@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4), (S2, T2[:, :3])])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor, with_l2_norm: bool) -> None:
    loss = AngleWiseRKD(loss_weight=2, with_l2_norm=with_l2_norm)
    assert_agrees(loss, lambda s, t: 2 * formula(s, t, with_l2_norm), student, teacher)


@WITH_NORM
def test_differentiable(with_l2_norm: bool) -> None:
    assert_differentiable(AngleWiseRKD(with_l2_norm=with_l2_norm), S2, T2[:, :3])


@pytest.mark.parametrize("samples", [1, 2])
def test_fewer_than_three_samples(samples: int) -> None:
    """One has no angle; two have the angle 0 only, in both networks."""
    value = AngleWiseRKD()(S2[:samples], T2[:samples])
    torch.testing.assert_close(value, torch.zeros_like(value))
    assert_finite(AngleWiseRKD(), S2[:samples], T2[:samples])


def test_one_sample_costs_nothing() -> None:
    assert_costs_nothing(AngleWiseRKD(), S2[:1], T2[:1])


@WITH_NORM
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_equal_and_dead_samples_stay_finite(with_l2_norm: bool, dtype: torch.dtype) -> None:
    twice, dead = S2.to(dtype).clone(), S2.to(dtype).clone()
    twice[1] = twice[0]
    dead[1] = 0
    for degenerate in (twice, dead, torch.zeros_like(dead)):
        assert_finite(AngleWiseRKD(with_l2_norm=with_l2_norm), degenerate, T2.to(dtype))
        assert_finite(AngleWiseRKD(with_l2_norm=with_l2_norm), T2.to(dtype), degenerate)


def test_autocast_does_not_coarsen_the_angles() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = AngleWiseRKD()(S2.float(), T2.float())
    torch.testing.assert_close(value, AngleWiseRKD()(S2.float(), T2.float()))


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"AngleWiseRKD: with_l2_norm is 1\.5; it can be True, False"):
        AngleWiseRKD(with_l2_norm=1.5)
    with pytest.raises(SpecError, match="AngleWiseRKD: loss_weight is None; it must be a number"):
        AngleWiseRKD(loss_weight=None)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 6\); dim 0, the samples, must be equal"):
        AngleWiseRKD()(S2, T2[:3])
