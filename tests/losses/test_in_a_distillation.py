"""Losses with layers, with state, or with arguments that neither model gives, in a distillation as a whole."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.losses import CRDLoss, FGDLoss

OWN = torch.tensor([7, 0, 9, 3])
CONTRAST = torch.tensor([[7, 1, 1, 2], [0, 5, 8, 9], [9, 0, 1, 2], [3, 7, 9, 4]])
BOXES = torch.tensor([[[0.0, 0.0, 7.0, 9.0], [2.0, 1.0, 8.0, 8.0]]]).repeat(4, 1, 1)
SIZES = torch.tensor([[10, 10]]).repeat(4, 1)


class Small(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, 6)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stem(image).relu().mean((2, 3)))


def prepare(point: str, loss: dict[str, Any], inputs: dict[str, Any], **options: Any) -> Any:
    torch.manual_seed(0)
    arguments = {name: f"from_input: {name}" for name in inputs}
    pair = {"student": point, "teacher": point, "loss": loss, "args": arguments}
    spec = {"pairs": [pair], "inputs": list(inputs)}
    image = torch.randn(4, 3, 10, 10)
    example = fxkd.Inputs((image,), inputs)
    return fxkd.prepare(Small(2), Small(4), spec, example_inputs=example, **options), image


@pytest.mark.parametrize("compile", [False, {"backend": "aot_eager"}])
def test_contrast_over_two_steps(compile: Any, fresh_dynamo: None) -> None:
    """The banks move once a step, and verifying the graph moves them not at all."""
    config = {"type": "CRDLoss", "neg_num": 3, "sample_n": 10, "dim_out": 6, "temperature": 5.0}
    samples = {"data_samples": torch.cat([OWN[:, None], CONTRAST], dim=1)}
    distiller, image = prepare("head", config, samples, compile=compile)
    (loss,) = distiller.losses.values()
    alone = CRDLoss(**{name: value for name, value in config.items() if name != "type"})
    assert (loss.params[2:4] == -1).all()
    alone.load_state_dict(loss.state_dict())
    for _ in range(2):
        out = distiller(image, **samples)
        expected = alone(distiller.student(image), distiller.teachers["teacher"](image), (OWN, CONTRAST))
        torch.testing.assert_close(out.loss, expected.mean())
        torch.testing.assert_close(dict(loss.state_dict()), dict(alone.state_dict()))
        out.loss.backward()
    assert distiller.student.stem.weight.grad.any()


def test_layers_of_a_loss_are_trained() -> None:
    config = {"type": "FGDLoss", "student_channels": 2, "teacher_channels": 4}
    inputs = {"gt_bboxes": BOXES, "img_metas": SIZES}
    distiller, image = prepare("stem", config, inputs)
    (loss,) = distiller.losses.values()
    assert isinstance(loss, FGDLoss)
    out = distiller(image, **inputs)
    torch.testing.assert_close(
        out.loss, loss(distiller.student.stem(image), distiller.teachers["teacher"].stem(image), BOXES, SIZES)
    )
    out.loss.backward()
    assert loss.align.weight.grad.any()
    assert set(map(id, loss.parameters())) <= set(map(id, distiller.parameters()))


def test_labels() -> None:
    labels = {"gt_labels": torch.tensor([0, 5, -100, 2])}
    distiller, image = prepare("head", {"type": "WSLD", "num_classes": 6}, labels)
    assert distiller(image, **labels).loss > 0
    assert distiller(image, gt_labels=torch.full((4,), -100)).loss == 0
