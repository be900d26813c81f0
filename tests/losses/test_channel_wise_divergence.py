"""Tests of fxkd/losses/channel_wise_divergence.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import ChannelWiseDivergence
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_compiles,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    assert_finite_in_half,
    assert_layout_does_not_count,
)


def formula(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Channel by channel."""
    total = torch.zeros((), dtype=student.dtype)
    for n in range(student.shape[0]):
        for c in range(student.shape[1]):
            p, q = ((x[n, c] / tau).exp() / (x[n, c] / tau).exp().sum() for x in (teacher, student))
            total = total + (p * p.log() - p * q.log()).sum()
    return tau * tau * total / (student.shape[0] * student.shape[1])


def test_golden() -> None:
    assert_golden(ChannelWiseDivergence()(S4, T4), 0.4275652896)
    assert_golden(ChannelWiseDivergence(tau=4, loss_weight=5)(S4, T4), 2.3625333852)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "ChannelWiseDivergence", "tau": 4})) is ChannelWiseDivergence


@pytest.mark.parametrize("flat", [False, True])
def test_agrees_with_the_formula(flat: bool) -> None:
    student, teacher = (S4.flatten(2), T4.flatten(2)) if flat else (S4, T4)
    loss = ChannelWiseDivergence(tau=3, loss_weight=5)
    assert_agrees(loss, lambda s, t: 5 * formula(s, t, 3), student, teacher)


def test_differentiable() -> None:
    assert_differentiable(ChannelWiseDivergence(tau=2), S4[:2, :2], T4[:2, :2])


def test_far_apart_maps_stay_finite() -> None:
    assert_finite(ChannelWiseDivergence(), -500 * S4.float(), 500 * S4.float())


def test_layout() -> None:
    assert_layout_does_not_count(ChannelWiseDivergence(), S4, T4)


def test_an_empty_batch() -> None:
    assert_costs_nothing(ChannelWiseDivergence(tau=4), S4[:0], T4[:0])


def test_half() -> None:
    assert_finite_in_half(ChannelWiseDivergence(tau=4, loss_weight=5), S4, T4)


def test_compiles() -> None:
    assert_compiles(ChannelWiseDivergence(tau=4), S4, T4)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="ChannelWiseDivergence: tau is -1; a temperature must be above 0"):
        ChannelWiseDivergence(tau=-1)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 1, 2, 5\); they must be equal.*ConvModuleConnector"):
        ChannelWiseDivergence()(S4, T4[:, :1])
    with pytest.raises(SpecError, match=r"preds_S has shape \(4, 6\); it needs space axes.*KLDivergence"):
        ChannelWiseDivergence()(S2, T2)
