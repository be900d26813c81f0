"""The example of label assignment distillation, cut short; and its steps beside the same steps by hand."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from tests.opaque.steps import Spy, assert_trains_alike

FOLDER = Path(__file__).parents[2] / "examples" / "lad"
WAYS: dict[str, dict[str, Any]] = {
    "graph": {"backend": "graph"},
    "eager": {"backend": "eager"},
    "compiled": {"wrap": lambda distiller: torch.compile(distiller, fullgraph=True, backend="aot_eager")},
}

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the example as a script does, by its bare names."""
    monkeypatch.syspath_prepend(FOLDER)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.split("_")[0] == "lad"]:
        del sys.modules[name]


def test_the_example_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    import lad

    short = lad.Settings(teacher_steps=3, steps=2, train_images=16, test_images=8)
    (run,) = lad.main(1, short)
    assert 0 <= run.alone <= 1
    assert 0 <= run.taught <= 1
    assert "taught minus alone" in capsys.readouterr().out


def test_average_precision_of_the_truth_and_of_nothing() -> None:
    import lad_images
    import lad_measure

    images = lad_images.make(12, 3)
    right, wrong = ({"scores": _scores(images, sign), "boxes": _padded(images.boxes)} for sign in (8.0, -8.0))
    assert lad_measure.average_precision(Says(right), images, 3) == pytest.approx(1.0)
    assert lad_measure.average_precision(Says(wrong), images, 3) == 0.0


def _scores(images: Any, sign: float) -> Tensor:
    scores = torch.full((len(images.labels), 20, 3), -8.0)
    for image, thing in (images.labels >= 0).nonzero().tolist():
        scores[image, thing, images.labels[image, thing]] = sign
    return scores


def _padded(boxes: Tensor) -> Tensor:
    return torch.cat((boxes, torch.zeros(len(boxes), 20 - boxes.shape[1], 4)), 1)


class Says(nn.Module):
    """Gives what it is told."""

    def __init__(self, told: dict[str, Tensor]) -> None:
        super().__init__()
        self.told = told

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return self.told


@pytest.mark.parametrize("way", ["graph", "eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_the_student_learns_by_the_assignment_of_the_teacher(way: str) -> None:
    import lad
    import lad_detector
    import lad_images

    images = lad_images.make(40, 0)
    spy = Spy(lad_detector.Assigner, "assign")

    def batch(seed: int) -> dict[str, Tensor]:
        rows = slice(8 * seed, 8 * seed + 8)
        return {"pixels": images.pixels[rows], "boxes": images.boxes[rows], "labels": images.labels[rows]}

    def by_hand(student: nn.Module, teacher: nn.Module, given: dict[str, Tensor]) -> Tensor:
        out = spy.replaying(lambda: teacher.eval()(**given), lambda: student(**given))
        loss: Tensor = out["loss_class"] + out["loss_box"]
        return loss

    spec = fxkd.recipes.lad(None, None, methods=[lad.ASSIGN]).to_dict()
    names = assert_trains_alike(
        lambda: (lad._detector(4, 0), lad._detector(8, 1)), spec, batch, by_hand, spy, rtol=1e-4, **WAYS[way]
    )
    assert "student_assign" not in names
    assert "student_assigner" not in names
