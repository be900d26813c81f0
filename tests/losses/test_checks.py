"""Tests of fxkd/losses/_checks.py: what the losses' own tests leave open."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fxkd.errors import SpecError
from fxkd.losses._checks import check_choice, check_numbers, check_same_shape, check_same_space, check_temperature


class SomeLoss(nn.Module):
    """Owner of the messages."""


def test_what_is_right_passes() -> None:
    owner = SomeLoss()
    check_choice(owner, "flag", True, (True, False))
    check_numbers(owner, whole=1, real=-0.5)
    check_temperature(owner, 0.1)
    check_same_shape(owner, a=torch.ones(2, 3), b=torch.zeros(2, 3))
    check_same_space(owner, a=torch.ones(2, 3, 4), b=torch.zeros(2, 9, 4))


def test_a_choice_can_be_anything() -> None:
    with pytest.raises(SpecError, match=r"^SomeLoss: kind is \['a'\]; it can be 'a', 'b'\.$"):
        check_choice(SomeLoss(), "kind", ["a"], ("a", "b"))


@pytest.mark.parametrize("tau", [0, -2.0, float("nan")])
def test_a_temperature_is_above_zero(tau: float) -> None:
    with pytest.raises(SpecError, match=r"tau is .*; a temperature must be above 0\."):
        check_temperature(SomeLoss(), tau)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (1, 3, 4), (2, 3, 4, 1)])
def test_space_counts_rank_and_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="all but the channels"):
        check_same_space(SomeLoss(), a=torch.ones(2, 3, 4), b=torch.ones(shape))


@pytest.mark.parametrize("check", [check_same_shape, check_same_space])
def test_what_is_no_tensor(check: Callable[..., None]) -> None:
    with pytest.raises(
        SpecError, match=r"^SomeLoss: b is a tuple, not a tensor; pick one part of it with 'data_idx'\.$"
    ):
        check(SomeLoss(), a=torch.ones(2), b=(torch.ones(2),))
    with pytest.raises(SpecError, match=r"^SomeLoss: a is a NoneType, not a tensor\.$"):
        check(SomeLoss(), a=None, b=torch.ones(2))
