"""Tests of fxkd/losses/fbkd_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import FBKDLoss
from tests.golden import S4, T4
from tests.losses.agreement import assert_agrees, assert_costs_nothing, assert_differentiable

OPTIONS = {"mask_l2_weight": 0.5, "channel_weight": 2, "spatial_weight": 3, "nonloacl_weight": 5, "loss_weight": 0.1}


def attention(feature: Tensor) -> Tensor:
    """Positive, of mean 1, one number a position: what a connector gives, with less ado."""
    energy = feature.abs().sum(1, keepdim=True)
    return energy / energy.mean((2, 3), keepdim=True)


def student_parts(x: Tensor) -> tuple[Tensor, ...]:
    return attention(x), x.mean((2, 3), keepdim=True), x.amax((2, 3)), x.sum(1, keepdim=True), 2 * x, x.flip(1)


def teacher_parts(x: Tensor) -> tuple[Tensor, ...]:
    return attention(x), x.mean((2, 3), keepdim=True), x.amax(1, keepdim=True), x.exp(), x


def on_features(loss: Any) -> Any:
    return lambda s, t: loss(student_parts(s), list(teacher_parts(t)))


def length(numbers: Tensor) -> Tensor:
    return sum(number * number for number in numbers.flatten()) ** 0.5


def formula(s: tuple[Tensor, ...], t: tuple[Tensor, ...]) -> Tensor:
    """Part by part, number by number, with the weights of OPTIONS."""
    mask = ((s[0] + t[0]) / 2).detach().expand_as(s[5])
    under_attention = sum(m * (a - b) ** 2 for m, a, b in zip(*(x.flatten() for x in (mask, s[5], t[4])), strict=True))
    channels = torch.stack([torch.stack([channel.sum() / channel.numel() for channel in sample]) for sample in t[4]])
    total = 0.5 * under_attention**0.5 + 2 * length(channels - s[2]) + 3 * length(t[2] - s[3]) + 5 * length(t[3] - s[4])
    return 0.1 * total


def test_agrees_with_the_formula() -> None:
    assert_agrees(on_features(FBKDLoss(**OPTIONS)), on_features(formula), S4, T4)


def test_the_default_weights() -> None:
    loss = FBKDLoss()
    found = loss.mask_l2_weight, loss.channel_weight, loss.spatial_weight, loss.nonloacl_weight, loss.loss_weight
    assert found == (7e-5, 4e-3, 4e-3, 7e-5, 1)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "FBKDLoss", "nonloacl_weight": 4e-3})) is FBKDLoss


def test_differentiable() -> None:
    """Apart from the masks, which are detached."""
    masks = attention(S4[:1]), attention(T4[:1])
    loss = FBKDLoss(**OPTIONS)
    assert_differentiable(
        lambda s, t: loss((masks[0], *student_parts(s)[1:]), (masks[1], *teacher_parts(t)[1:])), S4[:1], T4[:1]
    )


def test_equal_sides_cost_nothing() -> None:
    """Every distance is 0, where the square root has no slope."""

    def equal(s: Tensor, t: Tensor) -> Tensor:
        student = attention(s), s, s.mean((2, 3)), s.sum(1, keepdim=True), s, s
        return FBKDLoss()(student, (attention(t), t, t.sum(1, keepdim=True), t, t))

    assert_costs_nothing(equal, S4, S4)


@pytest.mark.parametrize("part", [0, 1])
def test_no_gradient_reaches_the_masks_or_the_attention_over_channels(part: int) -> None:
    student, teacher = list(student_parts(S4)), list(teacher_parts(T4))
    student[part] = student[part].clone().requires_grad_()
    teacher[part] = teacher[part].clone().requires_grad_()
    assert not FBKDLoss()(student, teacher).requires_grad


def test_wrong_options() -> None:
    for name in OPTIONS:
        with pytest.raises(SpecError, match=f"FBKDLoss: {name} is '1'; it must be a number"):
            FBKDLoss(**{name: "1"})


def test_wrong_values() -> None:
    loss, student, teacher = FBKDLoss(), student_parts(S4), teacher_parts(T4)
    with pytest.raises(SpecError, match="s_input is 5 values; it takes the 6 that FBKDStudentConnector gives"):
        loss(teacher, teacher)
    with pytest.raises(SpecError, match="t_input is a Tensor; it takes the 5 that FBKDTeacherConnector gives"):
        loss(student, T4)
    with pytest.raises(SpecError, match=r"t_input\[4\] is a NoneType, not a tensor"):
        loss(student, (*teacher[:4], None))
    with pytest.raises(SpecError, match=r"the student's relations has shape \(3, 4, 2, 5\) and the teacher's rel"):
        loss(student, (*teacher[:3], T4[:, :1], T4))
