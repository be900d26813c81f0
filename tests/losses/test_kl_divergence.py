"""Tests of fxkd/losses/kl_divergence.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import KLDivergence
from fxkd.losses.kl_divergence import kl_terms
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
    """Per sample, by the definition of softmax and of the divergence."""
    p, q = (x.div(tau).exp() / x.div(tau).exp().sum(1, keepdim=True) for x in (teacher, student))
    return tau * tau * (p * (p / q).log()).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("student", "teacher", "reduction", "expected"),
    [
        (S2, T2, "batchmean", 1.9805085317),
        (S2, T2, "mean", 0.3300847553),
        (S2, T2, "sum", 7.9220341267),
        (S4, T4, "batchmean", 4.7412318466),
        (S4, T4, "mean", 0.1185307962),
        (S4, T4, "sum", 14.2236955398),
    ],
)
def test_golden(student: Tensor, teacher: Tensor, reduction: str, expected: float) -> None:
    assert_golden(KLDivergence(tau=4, reduction=reduction)(student, teacher), expected)


def test_found_by_name() -> None:
    loss = losses.build({"type": "KLDivergence", "tau": 4})
    assert type(loss) is KLDivergence
    assert_golden(loss(S2, T2), 1.9805085317)


@pytest.mark.parametrize(("student", "teacher"), [(S2, T2), (S4, T4)])
def test_agrees_with_the_formula(student: Tensor, teacher: Tensor) -> None:
    both_sides = KLDivergence(tau=3, loss_weight=0.7, teacher_detach=False)
    assert_agrees(both_sides, lambda s, t: 0.7 * formula(s, t, 3).mean(), student, teacher)
    student_side = KLDivergence(tau=3, loss_weight=0.7)
    assert_agrees(student_side, lambda s, t: 0.7 * formula(s, t.detach(), 3).mean(), student, teacher)


def test_none_keeps_the_shape() -> None:
    elements = KLDivergence(tau=2, reduction="none")(S4, T4)
    assert elements.shape == S4.shape
    torch.testing.assert_close(elements.flatten(1).sum(1), formula(S4, T4, 2))


def test_differentiable() -> None:
    assert_differentiable(KLDivergence(tau=2, teacher_detach=False), S2, T2)


def test_the_gradient_at_the_student_is_the_difference_of_the_distributions() -> None:
    student = S2.clone().requires_grad_()
    KLDivergence(tau=2, reduction="sum")(student, T2).backward()
    torch.testing.assert_close(student.grad, 2 * ((S2 / 2).softmax(1) - (T2 / 2).softmax(1)))


def test_equal_logits_cost_nothing() -> None:
    assert KLDivergence(tau=2)(S4, S4) == 0


def test_a_class_that_the_teacher_rules_out_counts_nothing() -> None:
    ruled_out = torch.tensor([[0.5, -1.0, -torch.inf]], dtype=torch.float64)
    student = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert_finite(KLDivergence(teacher_detach=False), student, ruled_out)
    assert_finite(KLDivergence(teacher_detach=False), ruled_out, ruled_out)
    log_p, log_q = ruled_out.log_softmax(1), student.log_softmax(1)
    expected = torch.nn.functional.kl_div(log_q, log_p.exp(), reduction="none")
    torch.testing.assert_close(kl_terms(log_p, log_q), expected)


def test_far_apart_logits_stay_finite() -> None:
    far = torch.tensor([[0.0, 300.0, -300.0]])
    assert_finite(KLDivergence(teacher_detach=False), -far, far)


def test_layout() -> None:
    assert_layout_does_not_count(KLDivergence(teacher_detach=False), S4, T4)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum"])
def test_an_empty_batch(reduction: str) -> None:
    assert_costs_nothing(KLDivergence(reduction=reduction, teacher_detach=False), S4[:0], T4[:0])


def test_half() -> None:
    assert_finite_in_half(KLDivergence(tau=2, teacher_detach=False), S4, T4)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum", "none"])
def test_compiles(reduction: str) -> None:
    assert_compiles(KLDivergence(tau=2, reduction=reduction), S4, T4)


def test_wrong_options() -> None:
    with pytest.raises(
        SpecError, match=r"KLDivergence: reduction is 'meen'; .*'batchmean', 'mean'.* Did you mean 'mean'"
    ):
        KLDivergence(reduction="meen")
    with pytest.raises(SpecError, match="tau is 0; a temperature must be above 0"):
        KLDivergence(tau=0)
    with pytest.raises(SpecError, match="teacher_detach is 'no'"):
        KLDivergence(teacher_detach="no")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_S has shape \(4, 6\) and preds_T has shape \(1, 6\).*connector"):
        KLDivergence()(S2, T2[:1])
