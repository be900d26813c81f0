"""Tests of fxkd/losses/l2_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import L2Loss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_compiles,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    assert_finite_in_half,
    assert_layout_does_not_count,
    value_and_gradients,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"mult": 2.0},
    {"normalize": False},
    {"normalize": False, "div_element": True},
    {"normalize": False, "dist": True},
    {"dist": True, "div_element": True, "mult": 3.0},
]


def formula(
    student: Tensor,
    teacher: Tensor,
    normalize: bool = True,
    mult: float = 1,
    div_element: bool = False,
    dist: bool = False,
) -> Tensor:
    """Sample by sample, without a guard against samples of zeros."""
    q = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student, teacher, strict=True):
        if normalize:
            s, t = mult * s / (s * s).sum().sqrt(), mult * t / (t * t).sum().sqrt()
        q = q + ((s - t) ** 2).sum()
    return q.sqrt() if dist else q / (student.numel() if div_element else len(student))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1.9762748439),
        ({"mult": 2}, 7.9050993755),
        ({"normalize": False}, 39.5800980162),
        ({"normalize": False, "div_element": True}, 0.9895024504),
        ({"normalize": False, "dist": True}, 10.8968020102),
    ],
)
def test_golden(options: dict[str, Any], expected: float) -> None:
    assert_golden(L2Loss(**options)(S4, T4), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "L2Loss", "normalize": False})) is L2Loss


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor, options: dict[str, Any]) -> None:
    assert_agrees(L2Loss(loss_weight=0.5, **options), lambda s, t: 0.5 * formula(s, t, **options), student, teacher)


@pytest.mark.parametrize("options", OPTIONS)
def test_differentiable(options: dict[str, Any]) -> None:
    assert_differentiable(L2Loss(**options), S2, T2)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_sample_of_zeros(options: dict[str, Any], dtype: torch.dtype) -> None:
    dead = S4.to(dtype).clone()
    dead[1] = 0
    assert_finite(L2Loss(**options), dead, T4.to(dtype))
    assert_finite(L2Loss(**options), T4.to(dtype), dead)
    assert_finite(L2Loss(**options), dead, dead)


def test_a_sample_of_zeros_stays_zero_and_leaves_the_others_alone() -> None:
    dead = S4.clone()
    dead[1] = 0
    rest = torch.tensor([0, 2])
    value, student, teacher = value_and_gradients(L2Loss(), dead, T4)
    alone = value_and_gradients(L2Loss(loss_weight=2 / 3), S4[rest], T4[rest])
    torch.testing.assert_close(value, alone[0] + 1 / 3)  # the distance of zero and a unit vector, over N
    torch.testing.assert_close([student[rest], teacher[rest]], alone[1:])


def test_tiny_samples_are_still_scaled_to_length_one() -> None:
    torch.testing.assert_close(L2Loss()(1e-20 * S4, T4), L2Loss()(S4, T4))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_distance_of_equal_features_has_gradient_zero(normalize: bool) -> None:
    value, student, teacher = value_and_gradients(L2Loss(normalize=normalize, dist=True), S4, S4)
    assert value == 0
    assert not student.any()
    assert not teacher.any()


def test_layout() -> None:
    assert_layout_does_not_count(L2Loss(), S4, T4)


@pytest.mark.parametrize("options", OPTIONS)
def test_an_empty_batch(options: dict[str, Any]) -> None:
    assert_costs_nothing(L2Loss(**options), S4[:0], T4[:0])


def test_half() -> None:
    assert_finite_in_half(L2Loss(), S4, T4)
    assert_finite_in_half(L2Loss(dist=True), S4, T4)


@pytest.mark.parametrize("options", OPTIONS)
def test_compiles(options: dict[str, Any]) -> None:
    assert_compiles(L2Loss(**options), S4, T4)


def test_compiled_gradient_at_the_repaired_points() -> None:
    compiled = torch.compile(L2Loss(dist=True), fullgraph=True, backend="aot_eager")
    assert_finite(compiled, torch.zeros(2, 3), torch.ones(2, 3))
    assert_finite(compiled, torch.zeros(2, 3), torch.zeros(2, 3))


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="L2Loss: normalize is 'l2'; it can be True, False"):
        L2Loss(normalize="l2")
    with pytest.raises(SpecError, match=r"dist is 'true'.*Did you mean 'True'"):
        L2Loss(dist="true")
    with pytest.raises(SpecError, match="mult is None; it must be a number"):
        L2Loss(mult=None)


@pytest.mark.parametrize("normalize", [True, False])
def test_wrong_shapes(normalize: bool) -> None:
    with pytest.raises(
        SpecError, match=r"\(3, 4, 2, 5\) and t_feature has shape \(3, 4, 1, 1\); they must be equal.*ConvMod"
    ):
        L2Loss(normalize=normalize)(S4, T4[:, :, :1, :1])
