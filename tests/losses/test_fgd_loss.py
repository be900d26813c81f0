"""Tests of fxkd/losses/fgd_loss.py."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import FGDLoss
from fxkd.losses._foreground import foreground
from tests.golden import cosine, sine
from tests.losses.agreement import (
    assert_agrees,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    value_and_gradients,
)

T = cosine(2, 6, 7, 9)
BOXES = [
    torch.tensor([[3.0, 5.0, 40.0, 60.0], [10.0, 10.0, 30.0, 20.0]], dtype=torch.float64),
    torch.tensor([[50.0, 0.0, 89.0, 69.0]], dtype=torch.float64),
]
SIZES = torch.tensor([[70, 90], [64, 90]])
METAS = [{"img_shape": (70, 90, 3)}, {"img_shape": (64, 90, 3)}]
WEIGHTS: dict[str, Any] = {"alpha_fgd": 0.5, "beta_fgd": 0.25, "gamma_fgd": 2.0, "lambda_fgd": 0.125}


def build(channels: int, **options: Any) -> FGDLoss:
    """Every parameter p is ``p[k] = 0.1 cos(k)`` by its own flat index."""
    loss = FGDLoss(channels, 6, **options).double()
    with torch.no_grad():
        for parameter in loss.parameters():
            values = 0.1 * torch.arange(parameter.numel(), dtype=torch.float64).cos()
            parameter.copy_(values.reshape(parameter.shape))
    return loss


def cells(boxes: Tensor, image: tuple[int, ...], height: int, width: int) -> list[list[float]]:
    """Box by box, cell by cell."""
    map_ = [[0.0] * width for _ in range(height)]
    for x1, y1, x2, y2 in boxes.tolist():
        left, right = math.floor(x1 * width / image[1]), math.ceil(x2 * width / image[1])
        top, bottom = math.floor(y1 * height / image[0]), math.ceil(y2 * height / image[0])
        share = 1 / ((bottom - top + 1) * (right - left + 1))
        for y in range(max(top, 0), min(bottom + 1, height)):
            for x in range(max(left, 0), min(right + 1, width)):
                map_[y][x] = max(map_[y][x], share)
    return map_


def attention(x: Tensor, temp: float) -> tuple[Tensor, Tensor]:
    channels, height, width = x.shape
    places = (x.abs().sum(0) / channels / temp).exp()
    strengths = (x.abs().sum((1, 2)) / (height * width) / temp).exp()
    return height * width * places / places.sum(), channels * strengths / strengths.sum()


def related(x: Tensor, mask: nn.Conv2d, block: nn.Sequential) -> Tensor:
    """With matrices in place of convolutions."""
    score = (torch.einsum("c,cyx->yx", mask.weight.flatten(), x) + mask.bias).exp()
    context = (x * score).sum((1, 2)) / score.sum()
    hidden = block[0].weight.flatten(1) @ context + block[0].bias
    hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
    hidden = (hidden * block[1].weight.flatten() + block[1].bias.flatten()).clamp_min(0)
    return x + (block[3].weight.flatten(1) @ hidden + block[3].bias)[:, None, None]


def formula(loss: FGDLoss, student: Tensor, teacher: Tensor, temp: float = 0.5) -> Tensor:
    """Image by image, with the weights of WEIGHTS."""
    if loss.align is not None:
        student = torch.einsum("oi,niyx->noyx", loss.align.weight.flatten(1), student) + loss.align.bias[:, None, None]
    total = torch.zeros((), dtype=student.dtype)
    for s, t, boxes, image in zip(student, teacher, BOXES, SIZES.tolist(), strict=True):
        objects = torch.tensor(cells(boxes, image, *t.shape[1:]), dtype=t.dtype)
        background = (objects == 0).to(t.dtype) / (objects == 0).sum()
        (places_s, strengths_s), (places_t, strengths_t) = attention(s, temp), attention(t, temp)
        energy = torch.einsum("cyx,yx,c->yx", (s - t) ** 2, places_t, strengths_t)
        total = total + 0.5 * (energy * objects).sum() + 0.25 * (energy * background).sum()
        total = total + 2 * (abs(places_s - places_t).sum() + abs(strengths_s - strengths_t).sum())
        difference = related(s, loss.conv_mask_s, loss.channel_add_conv_s)
        difference = difference - related(t, loss.conv_mask_t, loss.channel_add_conv_t)
        total = total + 0.125 * (difference**2).sum()
    return total / 2


@pytest.mark.parametrize(("channels", "expected"), [(4, 0.0348084307), (6, 0.0438946538)])
def test_golden(channels: int, expected: float) -> None:
    """The numbers of the authors' code, which works out the cells' shares in float32."""
    value = build(channels)(sine(2, channels, 7, 9), T, BOXES, METAS)
    torch.testing.assert_close(value.item(), expected, rtol=0, atol=1e-9)


def test_found_by_name() -> None:
    config = {"type": "FGDLoss", "student_channels": 4, "teacher_channels": 6, "temp": 0.8}
    assert type(losses.build(config)) is FGDLoss


@pytest.mark.parametrize("channels", [4, 6])
@pytest.mark.parametrize("temp", [0.5, 2.0])
def test_agrees_with_the_formula(channels: int, temp: float) -> None:
    loss = build(channels, temp=temp, **WEIGHTS)
    student = sine(2, channels, 7, 9)
    assert_agrees(lambda s, t: loss(s, t, BOXES, METAS), lambda s, t: formula(loss, s, t, temp), student, T)


def test_the_layers_learn() -> None:
    loss = build(4, **WEIGHTS)
    student = sine(2, 4, 7, 9)
    names, parameters = zip(*loss.named_parameters(), strict=True)
    found = torch.autograd.grad(loss(student, T, BOXES, METAS), parameters)
    expected = torch.autograd.grad(formula(loss, student, T), parameters)
    torch.testing.assert_close(dict(zip(names, found, strict=True)), dict(zip(names, expected, strict=True)))


def test_the_state_has_the_authors_names_and_the_start_adds_no_context() -> None:
    loss = FGDLoss(4, 6)
    block = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
    names = ["align.weight", "align.bias"]
    names += [f"conv_mask_{side}.{part}" for side in "st" for part in ("weight", "bias")]
    names += [f"channel_add_conv_{side}.{part}" for side in "st" for part in block]
    assert list(loss.state_dict()) == names
    assert FGDLoss(6, 6).align is None
    loss = FGDLoss(6, 6, alpha_fgd=0, beta_fgd=0, gamma_fgd=0, lambda_fgd=1).double()
    torch.testing.assert_close(loss(sine(2, 6, 7, 9), T, BOXES, METAS), (sine(2, 6, 7, 9) - T).square().sum() / 2)


def test_forms_of_boxes_and_sizes() -> None:
    loss, student = build(6, **WEIGHTS), sine(2, 6, 7, 9)
    expected = loss(student, T, BOXES, METAS)
    padded = torch.stack([BOXES[0], torch.cat([BOXES[1], torch.zeros(1, 4)])])
    for boxes in (padded, tuple(BOXES), [boxes.float() for boxes in BOXES], padded.int()):
        torch.testing.assert_close(loss(student, T, boxes, SIZES), expected)
    one = [{"img_shape": (70, 90)}] * 2
    torch.testing.assert_close(loss(student, T, BOXES, (70, 90)), loss(student, T, BOXES, one))


@pytest.mark.parametrize("boxes", [torch.zeros(2, 0, 4), [torch.zeros(0, 4)] * 2, torch.zeros(2, 3, 4)])
def test_images_without_objects_are_background(boxes: Any) -> None:
    loss = FGDLoss(6, 6, alpha_fgd=100, beta_fgd=1, gamma_fgd=0, lambda_fgd=0).double()
    constant = torch.ones(2, 6, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(loss(2 * constant, constant, boxes, SIZES), torch.tensor(6.0, dtype=torch.float64))


def test_boxes_over_the_edge_and_on_top_of_each_other() -> None:
    boxes = torch.tensor([[[-20.0, -5.0, 12.0, 500.0], [0.0, 0.0, 8.0, 8.0], [9.0, 9.0, 9.0, 30.0]]])
    found = foreground(boxes, torch.tensor([[40.0, 40.0]]), 10, 10)
    expected = torch.tensor([cells(boxes[0, :2], (40, 40), 10, 10)])
    torch.testing.assert_close(found, expected)
    assert found[0, 9, 0] > 0
    assert found[0, 0, 0] == 1 / 9


def test_an_object_that_fills_the_map_leaves_no_background() -> None:
    whole = torch.tensor([[[0.0, 0.0, 90.0, 70.0]]] * 2)
    assert_finite(lambda s, t: build(6)(s, t, whole, (70, 90)), sine(2, 6, 7, 9), T)


def test_differentiable() -> None:
    loss = build(2, **WEIGHTS)
    boxes = torch.tensor([[[0.0, 0.0, 5.0, 5.0]]])
    assert_differentiable(lambda s, t: loss(s, t, boxes, (8, 8)), sine(1, 2, 2, 3), cosine(1, 6, 2, 3))


def test_an_empty_batch() -> None:
    loss = build(4)
    assert_costs_nothing(lambda s, t: loss(s, t, [], []), sine(2, 4, 7, 9)[:0], T[:0])


@pytest.mark.parametrize("layers", [torch.float32, torch.float16])
def test_half_features(layers: torch.dtype) -> None:
    loss, student = build(4), sine(2, 4, 7, 9)
    expected = loss(student, T, BOXES, METAS)
    loss = loss.to(layers)
    value, *gradients = value_and_gradients(lambda s, t: loss(s, t, BOXES, METAS), student.half(), T.half())
    torch.testing.assert_close(value.double(), expected, rtol=0.02, atol=0.01)
    assert value.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["student_channels", "teacher_channels", "temp", *WEIGHTS])
def test_wrong_options(name: str) -> None:
    with pytest.raises(SpecError, match=f"FGDLoss: {name} is 'a'; it must be a"):
        FGDLoss(**{"student_channels": 4, "teacher_channels": 6, name: "a"})


def test_too_few_channels() -> None:
    with pytest.raises(SpecError, match=r"FGDLoss: teacher_channels is 1; .* give 2 or more"):
        FGDLoss(1, 1)


def test_wrong_features() -> None:
    loss, student = FGDLoss(4, 6).double(), sine(2, 4, 7, 9)
    with pytest.raises(SpecError, match=r"preds_S has shape \(2, 4, 63\); it takes maps"):
        loss(student.flatten(2), T, BOXES, METAS)
    with pytest.raises(SpecError, match=r"preds_S has shape \(2, 6, 7, 9\) .* but student_channels is 4 and teacher"):
        loss(T, T, BOXES, METAS)
    with pytest.raises(SpecError, match=r"preds_T has shape \(2, 6, 7, 8\); all but the channels"):
        loss(student, T[..., :8], BOXES, METAS)


@pytest.mark.parametrize(
    ("boxes", "sizes", "message"),
    [
        (BOXES[:1], METAS, r"gt_bboxes is a list of 1; 2 images take a tensor \(2, boxes, 4\), or a list of 2"),
        (torch.zeros(2, 4), METAS, r"gt_bboxes is a tensor \(2, 4\); 2 images take"),
        ([BOXES[0], None], METAS, "gt_bboxes is a list of 2; 2 images take"),
        (None, METAS, "gt_bboxes is a NoneType; 2 images take"),
        (BOXES, METAS[:1], r"img_metas is a list of 1; 2 images take a tensor \(2, 2\) of heights and widths"),
        (BOXES, torch.zeros(2, 3), r"img_metas is a tensor \(2, 3\); 2 images take"),
        (BOXES, [{"shape": (7, 9)}] * 2, "img_metas is a list of 2; 2 images take"),
        (BOXES, METAS[0], "img_metas is a dict; 2 images take"),
    ],
)
def test_wrong_boxes_and_sizes(boxes: Any, sizes: Any, message: str) -> None:
    with pytest.raises(SpecError, match=f"FGDLoss: {message}"):
        FGDLoss(4, 6).double()(sine(2, 4, 7, 9), T, boxes, sizes)
