"""Tests of fxkd/losses/dkd_loss.py."""

import warnings

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError, SpecWarning
from fxkd.losses import DKDLoss
from tests.golden import LABELS, S2, S4, T2, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_compiles,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    assert_finite_in_half,
    value_and_gradients,
)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def formula(student: Tensor, teacher: Tensor, labels: Tensor, tau: float, alpha: float, beta: float) -> Tensor:
    """Sample by sample, by the definition; the batch's sum."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t, label in zip(student.div(tau).exp(), teacher.div(tau).exp(), labels.flatten().tolist(), strict=True):
        others = [c for c in range(len(s)) if c != label]
        two_s, two_t = (torch.stack([x[label], x[others].sum()]) / x.sum() for x in (s, t))
        rest_s, rest_t = (x[others] / x[others].sum() for x in (s, t))
        total = total + alpha * divergence(two_t, two_s) + beta * divergence(rest_t, rest_s)
    return tau * tau * total


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("batchmean", 1.5046276226), ("mean", 6.0185104906), ("sum", 6.0185104906), ("none", 6.0185104906)],
)
def test_golden(reduction: str, expected: float) -> None:
    with warnings.catch_warnings(action="ignore", category=SpecWarning):
        loss = DKDLoss(tau=2, alpha=1, beta=0.5, reduction=reduction)
    assert_golden(loss(S2, T2, LABELS), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_reduction_that_sums_is_told(reduction: str) -> None:
    with pytest.warns(SpecWarning, match=rf"^DKDLoss: reduction '{reduction}' gives the sum .*; compat=False gives"):
        DKDLoss(reduction=reduction)


def test_reductions_that_mean_what_they_say() -> None:
    alone = torch.stack([formula(S2[i : i + 1], T2[i : i + 1], LABELS[i : i + 1], 2, 1, 0.5) for i in range(4)])
    options = {"tau": 2.0, "beta": 0.5, "compat": False}
    torch.testing.assert_close(DKDLoss(reduction="none", **options)(S2, T2, LABELS), alone)
    torch.testing.assert_close(DKDLoss(reduction="sum", **options)(S2, T2, LABELS), alone.sum())
    torch.testing.assert_close(DKDLoss(reduction="batchmean", **options)(S2, T2, LABELS), alone.mean())
    mean = formula(S2, T2, LABELS, 2, 1, 0) / (4 * 2) + formula(S2, T2, LABELS, 2, 0, 0.5) / (4 * 6)
    torch.testing.assert_close(DKDLoss(reduction="mean", **options)(S2, T2, LABELS), mean)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum", "none"])
def test_an_ignored_label_is_no_sample(reduction: str) -> None:
    loss = DKDLoss(tau=2, beta=3, reduction=reduction, compat=False)
    labels = torch.tensor([0, -100, 2, 3])
    rest = torch.tensor([0, 2, 3])
    value, student, teacher = value_and_gradients(loss, S2, T2, labels)
    expected = value_and_gradients(loss, S2[rest], T2[rest], labels[rest])
    torch.testing.assert_close([value.sum(), student[rest], teacher[rest]], [expected[0].sum(), *expected[1:]])
    assert not student[1].any()


def test_nothing_to_learn_from() -> None:
    assert_costs_nothing(DKDLoss(), S2, T2, torch.full((4,), -100))
    assert_costs_nothing(DKDLoss(), S2[:0], T2[:0], LABELS[:0])


def test_found_by_name() -> None:
    assert type(losses.build({"type": "DKDLoss", "reduction": "sum"})) is DKDLoss


@pytest.mark.parametrize(("alpha", "beta"), [(1, 8), (1, 0), (0, 1)])
def test_agrees_with_the_formula(alpha: float, beta: float) -> None:
    loss = DKDLoss(tau=3, alpha=alpha, beta=beta, loss_weight=0.1)
    assert_agrees(loss, lambda s, t, y: 0.1 * formula(s, t, y, 3, alpha, beta) / 4, S2, T2, LABELS)


def test_two_classes_leave_nothing_to_the_rest() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    loss = DKDLoss(beta=5)
    assert_agrees(loss, lambda s, t, y: formula(s, t, y, 1, 1, 0) / 4, S2[:, :2], T2[:, :2], labels)


def test_differentiable() -> None:
    assert_differentiable(DKDLoss(tau=2, beta=8), S2, T2, LABELS)


@pytest.mark.parametrize("labels", [LABELS.reshape(4, 1), LABELS.int(), LABELS.to(torch.uint8)])
def test_forms_of_labels(labels: Tensor) -> None:
    torch.testing.assert_close(DKDLoss()(S2, T2, labels), DKDLoss()(S2, T2, LABELS))


@pytest.mark.parametrize("sign", [-1, 1])
def test_far_apart_logits_stay_finite(sign: int) -> None:
    certain = 300 * torch.nn.functional.one_hot(LABELS, 6).float()  # the rest has probability 0 in float32
    assert_finite(DKDLoss(), sign * certain, -sign * certain, LABELS)
    assert_finite(DKDLoss(), sign * certain, T2.float(), LABELS)
    assert_finite(DKDLoss(), S2.float(), sign * certain, LABELS)


def test_equal_logits_cost_nothing() -> None:
    value, student, _ = value_and_gradients(DKDLoss(tau=2), S2, S2, LABELS)
    torch.testing.assert_close(value, torch.zeros_like(value))
    torch.testing.assert_close(student, torch.zeros_like(student))


def test_strided_logits() -> None:
    strided = S2.t().contiguous().t()
    assert not strided.is_contiguous()
    torch.testing.assert_close(DKDLoss()(strided, T2, LABELS), DKDLoss()(S2, T2, LABELS))


def test_half() -> None:
    assert_finite_in_half(DKDLoss(tau=2, beta=2), S2, T2, LABELS)


@pytest.mark.parametrize("labels", [LABELS, LABELS.reshape(4, 1).clone()])
def test_compiles(labels: Tensor) -> None:
    assert_compiles(DKDLoss(tau=2, beta=8), S2, T2, labels)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"DKDLoss: reduction is 'batch_mean'.* Did you mean 'batchmean'"):
        DKDLoss(reduction="batch_mean")
    with pytest.raises(SpecError, match="beta is '8'; it must be a number"):
        DKDLoss(beta="8")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_S has shape \(4, 6\) and preds_T has shape \(4, 1\)"):
        DKDLoss()(S2, T2[:, :1], LABELS)
    with pytest.raises(SpecError, match=r"preds_S has shape \(3, 4, 2, 5\); it takes logits \(N, C\)"):
        DKDLoss()(S4, T4, LABELS[:3])


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS.double(), T2.softmax(1), LABELS.expand(4, 4)])
def test_wrong_labels(labels: Tensor) -> None:
    with pytest.raises(
        SpecError, match=r"gt_labels is .* it takes 4 class indices, of shape \(4,\) or \(4, 1\).*argmax"
    ):
        DKDLoss()(S2, T2, labels)
