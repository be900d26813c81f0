"""The digits example, cut short: what it writes, and that both students have the same start and the same images."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import fxkd

ROOT = Path(__file__).parents[1]
NETWORKS = ("teacher", "alone", "distilled")
FILES = ["joint_graph.dot", "joint_graph.svg", "metrics.json", "student.pt"]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the examples as a script does, by their bare names, and on one thread as they do."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.startswith("digits")]:
        del sys.modules[name]


def training() -> ModuleType:
    import digits_training

    return digits_training


def short_run(steps: int = 2) -> Any:
    return training().run(0, training().load(), training().Settings(steps=steps), lambda name: None)


def few_images() -> tuple[Tensor, Tensor]:
    few = training().choose(training().load().train, 2, seed=0)
    return few.images, few.labels


def test_demo_as_a_script(tmp_path: Path) -> None:
    shown = run_script("digits.py", str(tmp_path), "--seeds", "1", "--steps", "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    check_metrics(json.loads((tmp_path / "metrics.json").read_text()), seeds=1)
    student = training().Cnn(training().STUDENT_WIDTH)
    student.load_state_dict(torch.load(tmp_path / "student.pt", weights_only=True))
    assert "student distilled" in shown
    assert "note: no no-such-compiler" in shown
    assert len(shown.splitlines()) < 20, "no progress bars in a log"


def run_script(name: str, *arguments: str) -> str:
    """Run an example from the root of the checkout, on a machine without a compiler; give what it prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "CXX": "no-such-compiler"}
    command = [sys.executable, "-W", "error", f"examples/{name}", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def check_metrics(metrics: dict[str, Any], seeds: int) -> None:
    for name in NETWORKS:
        assert set(metrics[name]) == {"mean", "std", "seeds"}
        assert len(metrics[name]["seeds"]) == seeds
        assert all(0 <= value <= 1 for value in metrics[name]["seeds"])
    differences = zip(metrics["distilled"]["seeds"], metrics["alone"]["seeds"], strict=True)
    assert metrics["distilled_minus_alone"]["seeds"] == [one - other for one, other in differences]
    assert metrics["parameters"]["alone"] == metrics["parameters"]["distilled"] < metrics["parameters"]["teacher"]
    assert {"step_ms", "settings", "versions"} < set(metrics)


def test_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import digits_study

    digits_study.main(tmp_path, seeds=2, settings=training().Settings(steps=2))
    study = json.loads((tmp_path / "study.json").read_text())
    check_metrics(study, seeds=2)
    difference = study["distilled_minus_alone"]
    one, other = difference["seeds"]
    assert difference["standard_error"] == pytest.approx(abs(one - other) / 2)
    assert "standard error" in capsys.readouterr().out


def test_both_students_start_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[dict[str, Tensor]] = []
    train = training().train

    def watch(model: nn.Module, data: Any, *rest: Any) -> float:
        network = model.student if isinstance(model, fxkd.Distiller) else model
        starts.append(copy.deepcopy(network.state_dict()) | {"images": data.images})
        return float(train(model, data, *rest))

    monkeypatch.setattr(training(), "train", watch)
    short_run()
    _, alone, distilled = starts
    torch.testing.assert_close(alone, distilled, rtol=0, atol=0)


def test_a_run_repeats_itself() -> None:
    first, second = short_run(), short_run()
    assert first.accuracy == second.accuracy
    states = [run.distiller.state_dict() for run in (first, second)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_both_networks_see_the_same_mixed_images(backend: Literal["graph", "eager"]) -> None:
    seen = {"type": "ModuleInputs", "source": "stem"}
    spec = training().SPEC | {"student_recorders": {"seen": seen}, "teacher_recorders": {"seen": seen}}
    student, teacher = training().Cnn(training().STUDENT_WIDTH), training().Cnn(training().TEACHER_WIDTH)
    distiller = fxkd.prepare(student.train(), teacher, spec, backend=backend, return_records=True)
    images, labels = few_images()
    records = [distiller(images, labels).records for _ in range(2)]
    first, second = [first_image(record, "student") for record in records]
    assert torch.equal(first, first_image(records[0], "teacher"))
    assert torch.equal(second, first_image(records[1], "teacher"))
    assert not torch.equal(first, images), "mixed"
    assert not torch.equal(first, second), "anew at each call"


def first_image(records: dict[str, Any], side: str) -> Any:
    """Give the images that went into the stem of one network."""
    return records[side]["seen"][0][0]


def test_distilling_draws_what_learning_alone_draws() -> None:
    """One mixup a step in each case, so that both students see the same images."""
    images, labels = few_images()
    student, teacher = training().Cnn(training().STUDENT_WIDTH), training().Cnn(training().TEACHER_WIDTH)
    distiller = fxkd.prepare(student.train(), teacher, training().SPEC, example_inputs=(images, labels))
    states = []
    for model in (student, distiller):
        torch.manual_seed(0)
        model(images, labels)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
