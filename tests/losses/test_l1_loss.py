"""Tests of fxkd/losses/l1_loss.py."""

import pytest
import torch

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import L1Loss
from tests.golden import S4, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_compiles,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    assert_finite_in_half,
    assert_layout_does_not_count,
)


def test_golden() -> None:
    assert_golden(L1Loss()(S4, T4), 0.8090823064)
    assert_golden(L1Loss(reduction="sum")(S4, T4), 97.0898767689)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "L1Loss", "loss_weight": 2})) is L1Loss


def test_agrees_with_the_formula() -> None:
    assert_agrees(L1Loss(loss_weight=3), lambda s, t: 3 * torch.where(s > t, s - t, t - s).sum() / 120, S4, T4)
    assert_agrees(L1Loss(reduction="none"), lambda s, t: torch.where(s > t, s - t, t - s), S4, T4)


@pytest.mark.parametrize(
    ("size_average", "reduce", "reduction"),
    [
        (None, None, "sum"),
        (True, None, "mean"),
        (False, None, "sum"),
        (None, True, "mean"),
        (None, False, "none"),
        (True, True, "mean"),
        (False, True, "sum"),
        (True, False, "none"),
        (False, False, "none"),
    ],
)
def test_old_flags_mean_what_they_mean_in_torch(size_average: bool | None, reduce: bool | None, reduction: str) -> None:
    loss = L1Loss(size_average=size_average, reduce=reduce, reduction="sum")
    expected = torch.nn.functional.l1_loss(S4, T4, reduction=reduction)
    torch.testing.assert_close(loss(S4, T4), expected)


def test_differentiable() -> None:
    assert_differentiable(L1Loss(), S4[:1], T4[:1])


def test_equal_features() -> None:
    assert_finite(L1Loss(), S4, S4)


def test_layout() -> None:
    assert_layout_does_not_count(L1Loss(), S4, T4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch(reduction: str) -> None:
    assert_costs_nothing(L1Loss(reduction=reduction), S4[:0], T4[:0])


def test_half() -> None:
    assert_finite_in_half(L1Loss(), S4, T4)


def test_compiles() -> None:
    assert_compiles(L1Loss(), S4, T4)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"L1Loss: reduction is 'avg'; it can be 'mean', 'sum', 'none'"):
        L1Loss(reduction="avg")
    with pytest.raises(SpecError, match="reduction is 'batchmean'"):  # known to MMRazor, but no call with it succeeds
        L1Loss(reduction="batchmean")
    with pytest.raises(SpecError, match="size_average is 'yes'; it can be None, True, False"):
        L1Loss(size_average="yes")
    with pytest.raises(SpecError, match=r"loss_weight is '1e-3'; it must be a number.*1\.0e-3"):
        L1Loss(loss_weight="1e-3")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"s_feature has shape \(3, 4, 2, 5\) and t_feature has shape \(3, 1, 2, 5\)"):
        L1Loss()(S4, T4[:, :1])
