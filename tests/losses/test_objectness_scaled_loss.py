"""Tests of fxkd/losses/objectness_scaled_loss.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import ObjectnessScaledLoss
from tests.golden import S2, T2, cosine, sine
from tests.losses.agreement import assert_agrees, assert_costs_nothing, value_and_gradients

S, T = 2 * sine(2, 16, 4, 5), 2 * cosine(2, 16, 4, 5)  # two anchors, three classes
WEIGHTS: dict[str, Any] = {"obj_weight": 0.5, "class_weight": 2.0, "box_weight": 3.0}


def strongest(teacher: Tensor, reach: int | None) -> dict[tuple[int, int, int], Tensor]:
    """Give the objectness at each anchor, row and column of one image, 0 where another of the class is stronger."""
    anchors, height, width = 2, *teacher.shape[1:]
    places = [(a, y, x) for a in range(anchors) for y in range(height) for x in range(width)]
    objectness = {(a, y, x): 1 / (1 + (-teacher[8 * a + 4, y, x]).exp()) for a, y, x in places}
    kind = {(a, y, x): int(teacher[8 * a + 5 : 8 * a + 8, y, x].argmax()) for a, y, x in places}

    def loses(one: tuple[int, int, int]) -> bool:
        return reach is not None and any(
            kind[one] == kind[other]
            and abs(one[1] - other[1]) <= reach
            and abs(one[2] - other[2]) <= reach
            and objectness[other] > objectness[one]
            for other in places
        )

    return {place: value * (not loses(place)) for place, value in objectness.items()}


def formula(student: Tensor, teacher: Tensor, reach: int | None, softmax: bool) -> Tensor:
    """Anchor by anchor, cell by cell, with the weights of WEIGHTS."""
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student, teacher.detach(), strict=True):
        for (a, y, x), target in strongest(t, reach).items():
            ours, theirs = (one[8 * a : 8 * a + 8, y, x] for one in (s, t))
            total = total + 0.5 * (target - ours[4].sigmoid()) ** 2
            p, q = (torch.softmax(one[5:], 0) if softmax else torch.sigmoid(one[5:]) for one in (ours, theirs))
            total = total + target * 2 * ((p - q) ** 2).sum()
            corner = (ours[:2].sigmoid() - theirs[:2].sigmoid()) ** 2
            total = total + target * 3 * (corner.sum() + ((ours[2:4] - theirs[2:4]) ** 2).sum())
    return total / len(student)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "ObjectnessScaledLoss", "num_anchors": 5})) is ObjectnessScaledLoss


@pytest.mark.parametrize(("neighbourhood", "reach"), [(0, None), (1, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize("class_activation", ["softmax", "sigmoid"])
def test_agrees_with_the_formula(neighbourhood: int, reach: int | None, class_activation: str) -> None:
    loss = ObjectnessScaledLoss(2, 10, neighbourhood=neighbourhood, class_activation=class_activation, **WEIGHTS)
    assert_agrees(loss, lambda s, t: 10 * formula(s, t, reach, class_activation == "softmax"), S, T)


def test_what_is_suppressed() -> None:
    """One anchor, two classes, a row of cells: neighbours of one class, the farther one, one of the other class."""
    teacher = torch.zeros(1, 7, 1, 5, dtype=torch.float64)
    teacher[0, 4, 0] = torch.tensor([2.0, 3.0, 1.0, 0.0, 0.5])
    teacher[0, 5:, 0] = torch.tensor([[9.0, 9.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 0.0, 0.0]])
    loss = ObjectnessScaledLoss(1, class_weight=0, box_weight=0)
    student = torch.full_like(teacher, -800)
    expected = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64).sigmoid().square().sum()
    torch.testing.assert_close(loss(student, teacher), expected)
    unsuppressed = ObjectnessScaledLoss(1, class_weight=0, box_weight=0, neighbourhood=0)
    torch.testing.assert_close(unsuppressed(student, teacher), teacher[0, 4].sigmoid().square().sum())


def test_equals_all_keep_their_objectness() -> None:
    teacher = torch.zeros(1, 16, 4, 5)
    loss = ObjectnessScaledLoss(2, class_weight=0, box_weight=0)
    torch.testing.assert_close(loss(torch.full_like(teacher, -800), teacher), torch.tensor(0.25 * 40))


def test_differentiable() -> None:
    loss = ObjectnessScaledLoss(2, **WEIGHTS)
    assert torch.autograd.gradcheck(lambda s: loss(s, T), S.clone().requires_grad_())


def test_no_gradient_reaches_the_teacher() -> None:
    assert not value_and_gradients(ObjectnessScaledLoss(2), S, T)[2].any()


def test_where_the_teacher_sees_nothing_boxes_and_classes_do_not_count() -> None:
    nothing = T.clone()
    nothing[:, [4, 12]] = -800
    loss = ObjectnessScaledLoss(2, obj_weight=0)
    assert_costs_nothing(loss, S, nothing)
    assert loss(S, T) > 1


def test_an_empty_batch() -> None:
    assert_costs_nothing(ObjectnessScaledLoss(2), S[:0], T[:0])


@pytest.mark.parametrize("name", ["num_anchors", "loss_weight", "neighbourhood", *WEIGHTS])
def test_options_that_are_no_numbers(name: str) -> None:
    with pytest.raises(SpecError, match=f"ObjectnessScaledLoss: {name} is 'a'; it must be a"):
        ObjectnessScaledLoss(**{"num_anchors": 2, name: "a"})


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="neighbourhood is 2; cells lie around one, so it must be odd, or 0"):
        ObjectnessScaledLoss(2, neighbourhood=2)
    with pytest.raises(SpecError, match="neighbourhood is -1; it must be a whole number above 0"):
        ObjectnessScaledLoss(2, neighbourhood=-1)
    with pytest.raises(SpecError, match=r"class_activation is 'softmx'; it can be .* Did you mean 'softmax'"):
        ObjectnessScaledLoss(2, class_activation="softmx")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(2, 16, 4, 4\); they must be equal"):
        ObjectnessScaledLoss(2)(S, T[..., :4])
    with pytest.raises(SpecError, match=r"preds_S has shape \(4, 6\); it takes maps \(N, C, H, W\)"):
        ObjectnessScaledLoss(1)(S2, T2)
    for anchors in (3, 4):
        with pytest.raises(SpecError, match=rf"preds_S has 16 channels; {anchors} anchors take {anchors} times x, y"):
            ObjectnessScaledLoss(anchors)(S, T)
