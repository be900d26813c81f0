"""Tests of fxkd/losses/ab_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import ABLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import assert_agrees, assert_differentiable, value_and_gradients


def formula(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Neuron by neuron."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student.reshape(-1), teacher.reshape(-1), strict=True):
        if t > 0:
            total = total + (s - margin) ** 2 * bool(s <= margin)
        else:
            total = total + (s + margin) ** 2 * bool(s > -margin)
    return 0.003 * total / len(student)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 0.1702822885), ({"loss_weight": 2, "margin": 0.5}, 0.1591907159)]
)
def test_golden(options: dict[str, Any], expected: float) -> None:
    assert_golden(ABLoss(**options)(S4, T4), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "ABLoss", "margin": 2})) is ABLoss


@pytest.mark.parametrize("margin", [0.5, 1, 0])
@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor, margin: float) -> None:
    loss = ABLoss(loss_weight=10, margin=margin)
    assert_agrees(loss, lambda s, t: 10 * formula(s, t, margin), student, teacher)


def test_the_bounds() -> None:
    """At ``s = m`` a firing teacher is obeyed; at ``s = -m`` a silent one, and 0 is silent."""
    student = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
    teacher = torch.tensor([[1.0, -1.0, 0.0, 1e-3]])
    torch.testing.assert_close(ABLoss(loss_weight=1000)(student, teacher), torch.tensor(6.0))


def test_differentiable() -> None:
    assert_differentiable(ABLoss(loss_weight=100), S2, T2)


def test_no_gradient_reaches_the_teacher() -> None:
    assert not value_and_gradients(ABLoss(), S4, T4)[2].any()


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="ABLoss: margin is '1'; it must be a number"):
        ABLoss(margin="1")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"ABLoss: s_feature has shape \(3, 4, 2, 5\) and t_feature has shape \(1, 4"):
        ABLoss()(S4, T4[:1])
