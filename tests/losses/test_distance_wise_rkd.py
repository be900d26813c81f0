"""Tests of fxkd/losses/distance_wise_rkd.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import DistanceWiseRKD
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_costs_nothing, assert_differentiable, assert_finite

WITH_NORM = pytest.mark.parametrize("with_l2_norm", [True, False])


def distances(samples: Tensor, with_l2_norm: bool) -> list[list[Tensor]]:
    points = [x / (x * x).sum() ** 0.5 if with_l2_norm else x for x in samples.flatten(1)]
    table = [[((a - b) ** 2).sum() ** 0.5 if a is not b else 0 * a.sum() for b in points] for a in points]
    mean = sum(map(sum, table)) / (len(points) * (len(points) - 1))
    return [[distance / mean for distance in row] for row in table]


def formula(student: Tensor, teacher: Tensor, with_l2_norm: bool) -> Tensor:
    """Pair by pair."""
    total = torch.zeros((), dtype=student.dtype)
    for row_s, row_t in zip(*(distances(x, with_l2_norm) for x in (student, teacher)), strict=True):
        for s, t in zip(row_s, row_t, strict=True):
            z = (s - t).abs()
            total = total + (z * z / 2 if z < 1 else z - 0.5)
    return total / len(student) ** 2


@pytest.mark.parametrize(
    ("student", "teacher", "with_l2_norm", "expected"),
    [(S2, T2, True, 3.3172902535), (S2, T2, False, 3.0295562157), (S4, T4, True, 0.1424313783)],
)
def test_golden(student: Tensor, teacher: Tensor, with_l2_norm: bool, expected: float) -> None:
    assert_golden(DistanceWiseRKD(with_l2_norm=with_l2_norm)(student, teacher), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "DistanceWiseRKD", "with_l2_norm": False})) is DistanceWiseRKD


@WITH_NORM
@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4), (S2, T2[:, :3]), (5 * S2[:, :1], T2)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor, with_l2_norm: bool) -> None:
    if with_l2_norm and student.shape[1] == 1:
        student = S2[:, :2]  # of width 1 all samples would be +-1
    loss = DistanceWiseRKD(loss_weight=2, with_l2_norm=with_l2_norm)
    assert_agrees(loss, lambda s, t: 2 * formula(s, t, with_l2_norm), student, teacher)


@WITH_NORM
def test_differentiable(with_l2_norm: bool) -> None:
    assert_differentiable(DistanceWiseRKD(with_l2_norm=with_l2_norm), S2, T2[:, :3])


@WITH_NORM
def test_one_sample_costs_nothing(with_l2_norm: bool) -> None:
    assert_costs_nothing(DistanceWiseRKD(with_l2_norm=with_l2_norm), S2[:1], T2[:1])


@WITH_NORM
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_equal_and_dead_samples_stay_finite(with_l2_norm: bool, dtype: torch.dtype) -> None:
    twice, dead = S2.to(dtype).clone(), S2.to(dtype).clone()
    twice[1] = twice[0]
    dead[1] = 0
    for degenerate in (twice, dead, torch.zeros_like(dead)):
        assert_finite(DistanceWiseRKD(with_l2_norm=with_l2_norm), degenerate, T2.to(dtype))
        assert_finite(DistanceWiseRKD(with_l2_norm=with_l2_norm), T2.to(dtype), degenerate)


def test_autocast_does_not_coarsen_the_distances() -> None:
    close = (1 + 1e-3 * S2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DistanceWiseRKD(with_l2_norm=False)(close, T2.float())
    torch.testing.assert_close(value, DistanceWiseRKD(with_l2_norm=False)(close, T2.float()))


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="DistanceWiseRKD: with_l2_norm is 'l2'; it can be True, False"):
        DistanceWiseRKD(with_l2_norm="l2")
    with pytest.raises(SpecError, match="DistanceWiseRKD: loss_weight is '25'; it must be a number"):
        DistanceWiseRKD(loss_weight="25")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 6\); dim 0, the samples, must be equal"):
        DistanceWiseRKD()(S2, T2[:3])
    with pytest.raises(SpecError, match=r"preds_S has shape \(\) and"):
        DistanceWiseRKD()(S2.sum(), T2)
