"""Tests of fxkd/losses/wsld.py."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import WSLD
from tests.golden import LABELS, S2, T2, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    value_and_gradients,
)


def formula(student: Tensor, teacher: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Sample by sample; the weights are plain numbers."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t, label in zip(student, teacher, labels.flatten().tolist(), strict=True):
        known, taught = (-math.log(x.exp()[label].item() / x.exp().sum().item()) for x in (s, t))
        gain = 1 - math.exp(-known / (taught + 1e-7))
        p, q = (x.div(tau).exp() / x.div(tau).exp().sum() for x in (t, s))
        total = total - gain * (p * q.log()).sum()
    return tau * tau * total / len(student)


@pytest.mark.parametrize(
    ("options", "expected"), [({"tau": 2}, 6.9712290034), ({"tau": 1, "loss_weight": 2.5}, 5.9984305147)]
)
def test_golden(options: dict[str, Any], expected: float) -> None:
    assert_golden(WSLD(num_classes=6, **options)(S2, T2, LABELS), expected)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "WSLD", "tau": 2})) is WSLD


def test_agrees_with_the_formula() -> None:
    loss = WSLD(tau=3, loss_weight=0.5, num_classes=6)
    assert_agrees(loss, lambda s, t, y: 0.5 * formula(s, t, y, 3), S2, T2, LABELS)


def test_differentiable() -> None:
    """A teacher that is sure of every label makes all weights 1, which finite differences do not move."""
    sure = 50 * torch.nn.functional.one_hot(LABELS, 6).double()
    assert_differentiable(WSLD(tau=20, num_classes=6), S2, sure, LABELS)


@pytest.mark.parametrize("labels", [LABELS.reshape(4, 1), LABELS.int(), LABELS.to(torch.uint8)])
def test_forms_of_labels(labels: Tensor) -> None:
    torch.testing.assert_close(WSLD(num_classes=6)(S2, T2, labels), WSLD(num_classes=6)(S2, T2, LABELS))


def test_an_ignored_label_is_no_sample() -> None:
    labels, rest = torch.tensor([0, -100, 2, 3]), torch.tensor([0, 2, 3])
    loss = WSLD(tau=2, num_classes=6)
    value, student, teacher = value_and_gradients(loss, S2, T2, labels)
    expected = value_and_gradients(loss, S2[rest], T2[rest], labels[rest])
    torch.testing.assert_close([value, student[rest], teacher[rest]], expected)
    assert not student[1].any()


def test_nothing_to_learn_from() -> None:
    assert_costs_nothing(WSLD(num_classes=6), S2, T2, torch.full((4,), -100))


@pytest.mark.parametrize("sign", [-1, 1])
def test_far_apart_logits_stay_finite(sign: int) -> None:
    certain = 300 * torch.nn.functional.one_hot(LABELS, 6).float()
    for student, teacher in ((certain, -certain), (certain, certain), (S2.float(), certain)):
        assert_finite(WSLD(num_classes=6), sign * student, sign * teacher, LABELS)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="WSLD: num_classes is 0; it must be a whole number above 0"):
        WSLD(num_classes=0)
    with pytest.raises(SpecError, match=r"WSLD: num_classes is 10\.0; it must be a whole number above 0"):
        WSLD(num_classes=10.0)
    with pytest.raises(SpecError, match="tau is 'a'; it must be a number"):
        WSLD(tau="a")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match="WSLD: num_classes is 1000, but the logits have 6 classes"):
        WSLD()(S2, T2, LABELS)
    with pytest.raises(SpecError, match=r"teacher has shape \(4, 5\); they must be equal"):
        WSLD(num_classes=6)(S2, T2[:, :5], LABELS)
    with pytest.raises(SpecError, match=r"student has shape \(2, 2, 6\); it takes logits \(N, C\)"):
        WSLD(num_classes=6)(S2.reshape(2, 2, 6), T2.reshape(2, 2, 6), LABELS[:2])
    with pytest.raises(SpecError, match=r"gt_labels is torch.int64 of shape \(3,\); it takes 4 class indices"):
        WSLD(num_classes=6)(S2, T2, LABELS[:3])
