"""Tests of fxkd/losses/activation_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import ActivationLoss
from tests.golden import T2, T4, assert_golden
from tests.losses.agreement import value_and_gradient


def formula(feature: Tensor, norm_type: str) -> Tensor:
    """Number by number."""
    numbers = list(feature.flatten())
    if norm_type == "abs":
        return -sum(number.abs() for number in numbers) / len(numbers)
    return -(sum(number * number for number in numbers) ** 0.5)


@pytest.mark.parametrize(("norm_type", "expected"), [("abs", -0.6358563711), ("norm", -7.7566938775)])
def test_golden(norm_type: str, expected: float) -> None:
    assert_golden(ActivationLoss(norm_type=norm_type)(T4), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "ActivationLoss", "norm_type": "norm"})) is ActivationLoss


@pytest.mark.parametrize("norm_type", ["abs", "norm"])
@pytest.mark.parametrize("feature", [T2, T4, T2[0]])
def test_agrees_with_the_formula(feature: Tensor, norm_type: str) -> None:
    found = value_and_gradient(ActivationLoss(loss_weight=0.1, norm_type=norm_type), feature)
    torch.testing.assert_close(found, value_and_gradient(lambda t: 0.1 * formula(t, norm_type), feature))


@pytest.mark.parametrize("norm_type", ["abs", "norm"])
def test_differentiable(norm_type: str) -> None:
    assert torch.autograd.gradcheck(ActivationLoss(norm_type=norm_type), T2.clone().requires_grad_())


@pytest.mark.parametrize("norm_type", ["abs", "norm"])
def test_a_dead_feature_has_gradient_zero(norm_type: str) -> None:
    value, gradient = value_and_gradient(ActivationLoss(norm_type=norm_type), torch.zeros(2, 3))
    assert value == 0
    assert not gradient.any()


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="ActivationLoss: norm_type is 'fro'; it can be 'norm', 'abs'"):
        ActivationLoss(norm_type="fro")


def test_wrong_values() -> None:
    with pytest.raises(SpecError, match="feat_T is a dict, not a tensor; pick one part of it with 'data_idx'"):
        ActivationLoss()({"feat": T4})
    with pytest.raises(SpecError, match=r"feat_T is a single number; it needs a dim of samples, \(N, ...\)"):
        ActivationLoss()(torch.tensor(1.0))
