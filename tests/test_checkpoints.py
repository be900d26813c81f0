"""Weights from files: plain, under a key, behind a wrapper's prefix, as safetensors; refused where they do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.checkpoints import load, read_state
from fxkd.errors import CaptureError, SpecError
from tests.support.oracle import assert_same

PAIR = {"student": "fc", "teacher": "fc", "loss": {"type": "L1Loss"}}


class Net(nn.Module):
    """A norm and a layer."""

    def __init__(self, width: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.fc = nn.BatchNorm1d(4), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.fc(self.norm(x))
        return value


def prefixed(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in model.state_dict().items()}


WRAPPED: dict[str, Any] = {
    "plain": lambda m: m.state_dict(),
    "state_dict": lambda m: {"state_dict": m.state_dict(), "epoch": 3},
    "two keys deep": lambda m: {"model": {"state_dict": m.state_dict()}},
    "ddp": lambda m: prefixed(m, "module."),
    "compiled": lambda m: {"state_dict": prefixed(m, "_orig_mod.module.")},
    "lightning": lambda m: {"state_dict": prefixed(m, "model.") | {"loss.weight": torch.ones(1)}},
    "algorithm": lambda m: {"state_dict": prefixed(m, "teacher.") | prefixed(Net(seed=9), "architecture.")},
    "without counters": lambda m: {k: v for k, v in m.state_dict().items() if "num_batches" not in k},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_teacher_is_loaded_whatever_wrapped_it(tmp_path: Path, kind: str) -> None:
    trained, teacher = Net(seed=1), Net(seed=2)
    torch.save(WRAPPED[kind](trained), tmp_path / "teacher.pth")
    fxkd.prepare(Net(), teacher, {"pairs": [PAIR], "teacher_ckpt": str(tmp_path / "teacher.pth")})
    assert_same(dict(teacher.named_parameters()), dict(trained.named_parameters()))


def test_the_student_of_a_file_that_holds_both(tmp_path: Path) -> None:
    trained, student = Net(seed=1), Net(seed=2)
    torch.save(prefixed(Net(seed=9), "teacher.") | prefixed(trained, "architecture."), tmp_path / "both.pth")
    fxkd.prepare(student, Net(), {"pairs": [PAIR], "student_ckpt": str(tmp_path / "both.pth")})
    assert_same(student.state_dict(), trained.state_dict())


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    trained, teacher = Net(seed=1), Net(seed=2)
    safetensors.save_file(prefixed(trained, "module."), tmp_path / "teacher.safetensors")
    load(teacher, tmp_path / "teacher.safetensors", "teacher_ckpt")
    assert_same(teacher.state_dict(), trained.state_dict())


def test_each_of_several_teachers_has_its_file(tmp_path: Path) -> None:
    trained, teachers = {"a": Net(seed=1), "b": Net(seed=2)}, {"a": Net(seed=3), "b": Net(seed=4)}
    for name, model in trained.items():
        torch.save(model.state_dict(), tmp_path / name)
    files = {name: str(tmp_path / name) for name in trained}
    spec = {"pairs": [PAIR | {"teacher": "a.fc"}], "teacher_ckpt": files}
    fxkd.prepare(Net(), teachers, spec)
    for name, model in trained.items():
        assert_same(teachers[name].fc.weight, model.fc.weight)
    with pytest.raises(SpecError, match=r"teacher_ckpt.c: there is no teacher 'c'; there is 'a', 'b'"):
        fxkd.prepare(Net(), teachers, spec | {"teacher_ckpt": {"c": files["a"]}})
    with pytest.raises(SpecError, match=r"teacher_ckpt: is one file; name it for 'a', 'b'"):
        fxkd.prepare(Net(), teachers, spec | {"teacher_ckpt": files["a"]})


def test_connectors_of_a_first_stage_go_on_in_the_second(tmp_path: Path) -> None:
    pair = PAIR | {"student_connector": {"type": "LinearConnector", "in_features": 3, "out_features": 5}}
    spec: dict[str, Any] = {"pairs": [pair]}
    first = fxkd.prepare(Net(), Net(5), spec)
    torch.save(first.state_dict(), tmp_path / "first.pth")
    torch.manual_seed(5)
    second = fxkd.prepare(Net(), Net(5), spec | {"pretrained": str(tmp_path / "first.pth")})
    assert_same(second.connectors.state_dict(), first.connectors.state_dict())
    more = {**pair, "name": "loss_more"}
    third = fxkd.prepare(Net(), Net(5), {"pairs": [pair, more], "pretrained": str(tmp_path / "first.pth")})
    assert "not in" in third.notes[0]
    assert "connectors.loss_more_student" in third.notes[0]
    with pytest.raises(
        SpecError, match=r"has none of 'connectors.loss_more_student'; it has connectors.loss_fc_student"
    ):
        fxkd.prepare(Net(), Net(5), {"pairs": [more], "pretrained": str(tmp_path / "first.pth")})


def test_a_failed_prepare_puts_the_weights_back(tmp_path: Path) -> None:
    teacher, trained = Net(seed=2), Net(seed=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.save(trained.state_dict(), tmp_path / "teacher.pth")
    spec = {"pairs": [PAIR], "teacher_ckpt": str(tmp_path / "teacher.pth")}
    with pytest.raises(CaptureError):
        fxkd.prepare(Net(), teacher, spec, example_inputs=(torch.ones(2, 7),))
    assert_same(dict(teacher.state_dict()), before)


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise RuntimeError('executed')",))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (Net(4).state_dict, r"has 'fc.weight' of shape \(4, 4\), and the model's is \(3, 4\) \(and 1 more\)"),
        (lambda: {"fc.weight": torch.ones(3, 4)}, "lacks 'norm.weight' .and 5 more.; it has 'fc.weight'"),
        (lambda: {"epoch": 3}, "holds no weights but a dict with 'epoch'"),
        (lambda: [1], "holds no weights but a list"),
        (Evil, "cannot be read as weights: UnpicklingError"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, held: Any, message: str) -> None:
    torch.save(held(), tmp_path / "teacher.pth")
    with pytest.raises(SpecError, match=f"teacher_ckpt: .*{message}"):
        fxkd.prepare(Net(), Net(), {"pairs": [PAIR], "teacher_ckpt": str(tmp_path / "teacher.pth")})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(SpecError, match=r"teacher_ckpt: there is no file '.*teecher.pth'. Did you mean 'teacher.pth'"):
        read_state(tmp_path / "teecher.pth", "teacher_ckpt")


def test_a_tensor_beside_the_weights_is_none_of_them(tmp_path: Path) -> None:
    trained, teacher = Net(seed=1), Net(seed=2)
    torch.save({"best_acc1": torch.tensor(0.5), "state_dict": trained.state_dict()}, tmp_path / "teacher.pth")
    load(teacher, tmp_path / "teacher.pth", "teacher_ckpt")
    assert_same(teacher.state_dict(), trained.state_dict())


def test_each_of_several_teachers_of_one_kind_gets_its_own_weights(tmp_path: Path) -> None:
    spec = {"pairs": [{**PAIR, "from_teacher": "b"}], "teacher_trainable": True, "student_loss": False}
    trained = {"b": Net(seed=1), "a": Net(seed=2)}
    torch.save(fxkd.prepare(Net(), trained, spec).state_dict(), tmp_path / "all.pth")
    fresh, files = {"b": Net(seed=3), "a": Net(seed=4)}, dict.fromkeys("ab", str(tmp_path / "all.pth"))
    fxkd.prepare(Net(), fresh, {**spec, "teacher_ckpt": files})
    for name, teacher in trained.items():
        assert_same(fresh[name].state_dict(), teacher.state_dict())


def test_weights_of_several_models_of_one_kind_are_not_guessed_among(tmp_path: Path) -> None:
    torch.save(prefixed(Net(seed=1), "ema.") | prefixed(Net(seed=2), "model."), tmp_path / "two.pth")
    with pytest.raises(SpecError, match="has the weights of this model under 'ema', 'model'; save one of them"):
        load(Net(), tmp_path / "two.pth", "teacher_ckpt")
