"""``fxkd migrate``: YAML that means the same, with a list of what it could not say."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torchvision
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fxkd.__main__ import main
from fxkd.errors import Problems, SpecError
from fxkd.migrate import migrate
from fxkd.named_model import named_model
from fxkd.rename import Renamed, rename_paths, renamed
from fxkd.spec import Spec
from fxkd.spec.source import read_source
from tests.configs import documented

ROOT = Path(__file__).parents[2]
KD = "distiller = dict(\n" + documented.KD.partition("distiller=dict(\n")[2].removesuffix(")\n") + "\n"
FITNET = """\
student_recorders = dict(
    last=dict(type='ModuleOutputs', source='backbone.layer4.1.relu'),
    gap=dict(type='ModuleOutputs', source='neck.gap'),
    weight=dict(type='Parameter', source='backbone.conv1.weight'),
    other=dict(type='FunctionOutputs', source='a.b'))
teacher_recorders = dict(last=dict(type='ModuleOutputs', source='backbone.layer4.2.relu'),
    gap=dict(type='ModuleInputs', source='head.fc'), lost=dict(type='ModuleOutputs', source='neck.fpn'))
distill_losses = dict(loss_a=dict(type='L2Loss'), loss_b=dict(type='L2Loss'))
loss_forward_mappings = dict(
    loss_a=dict(s_feature=dict(from_student=True, recorder='last', record_idx=1),
                t_feature=dict(from_student=False, recorder='last', record_idx=2)),
    loss_b=dict(s_feature=dict(from_student=True, recorder='gap'), t_feature=dict(from_student=False, recorder='gap')))
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [KD, documented.LAD, documented.RECORDERS, FITNET])
def test_the_yaml_means_the_same(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    done = migrate(path)
    assert done.not_mapped == ()
    again = tmp_path / "spec.yaml"
    again.write_text(done.text(), encoding="utf-8")
    assert Spec.load(again) == Spec.load(path)


@pytest.mark.parametrize("name", ["KD", "OFD", "NECK", "LAD", "MIXUP", "RECORDERS", "CUSTOM", "GML"])
def test_the_yaml_says_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/cifar10_bs16.py").write_text("")
    path = write(tmp_path, "teacher_ckpt = 'F:\\\\模型\\\\x.pth'\n" + getattr(documented, name))
    again = tmp_path / "spec.yaml"
    again.write_text(migrate(path, allow_imports=True).text(), encoding="utf-8")
    problems = Problems()
    assert read_source(again, problems) == read_source(path, Problems(), allow_imports=True)
    assert problems.found == []


def test_paths_of_timm_and_torchvision(tmp_path: Path) -> None:
    done = migrate(write(tmp_path, FITNET), student="timm:resnet18", teacher="torchvision:resnet50")
    assert done.spec["student_recorders"] == {
        "last": {"type": "ModuleOutputs", "source": "layer4.1.act2"},
        "gap": {"type": "ModuleOutputs", "source": "global_pool"},
        "weight": {"type": "Parameter", "source": "conv1.weight"},
        "other": {"type": "FunctionOutputs", "source": "a.b"},
    }
    assert done.spec["teacher_recorders"] == {
        "last": {"type": "ModuleOutputs", "source": "layer4.2.relu"},
        "gap": {"type": "ModuleInputs", "source": "fc"},
        "lost": {"type": "ModuleOutputs", "source": "neck.fpn"},
    }
    mapping = done.spec["loss_forward_mappings"]["loss_a"]
    assert mapping["s_feature"] == {"from_student": True, "recorder": "last"}
    assert mapping["t_feature"] == {"from_student": False, "recorder": "last", "record_idx": 2}
    assert done.not_mapped == (
        "teacher_recorders.lost.source: torchvision:resnet50 has no 'neck.fpn' and nothing that stands for it.",
    )
    student, teacher = timm.create_model("resnet18"), torchvision.models.resnet50()
    for name in ("last", "gap"):
        student.get_submodule(done.spec["student_recorders"][name]["source"])
        teacher.get_submodule(done.spec["teacher_recorders"][name]["source"])


def test_paths_of_pairs_and_of_several_teachers() -> None:
    model = nn.Sequential()
    model.add_module("layer1", nn.Linear(1, 1))
    model.add_module("act2", nn.ReLU())
    spec = {
        "pairs": [
            {"student": "backbone.layer1", "teacher": "backbone.layer1"},
            {"student": {"type": "ModuleOutputs", "source": "relu", "record_idx": 1}, "teacher": "layer2"},
        ],
        "teacher_recorders": {"a": {"type": "ModuleOutputs", "source": "teacher_0.backbone.layer1"}},
        "teacher_ckpt": {"teacher_0": "x.pth"},
    }
    assert rename_paths(spec, "student", model, "timm:x") == []
    told = "pairs[1].teacher: timm:x has no 'layer2' and nothing that stands for it. Did you mean 'layer1'?"
    assert rename_paths(spec, "teacher", model, "timm:x") == [told]
    assert spec["pairs"] == [
        {"student": "layer1", "teacher": "layer1"},
        {"student": {"type": "ModuleOutputs", "source": "act2"}, "teacher": "layer2"},
    ]
    assert spec["teacher_recorders"] == {"a": {"type": "ModuleOutputs", "source": "teacher_0.layer1"}}  # type: ignore[comparison-overlap]


def test_a_module_that_several_calls_of_are_read_is_not_renamed() -> None:
    model = nn.Sequential()
    model.add_module("act1", nn.ReLU())
    model.add_module("act2", nn.ReLU())
    references = {name: {"from_student": True, "recorder": "r", "record_idx": index} for index, name in enumerate("ab")}
    recorders = {"r": {"type": "ModuleOutputs", "source": "backbone.relu"}}
    spec = {"student_recorders": recorders, "loss_forward_mappings": {"loss": references}}
    (told,) = rename_paths(spec, "student", model, "timm:x")
    assert told.endswith("nothing that stands for it. There is a module for each call of it: record act1, act2.")
    assert recorders == {"r": {"type": "ModuleOutputs", "source": "backbone.relu"}}


@pytest.mark.parametrize(
    ("path", "call", "known", "found"),
    [
        ("head.fc", 0, ["head.fc"], Renamed(path="head.fc", record_idx=0)),
        ("head.fc", 0, ["fc"], Renamed(path="fc", record_idx=0)),
        ("head.fc", 0, ["classifier"], Renamed(path="classifier", record_idx=0)),
        ("neck.gap", 0, ["avgpool"], Renamed(path="avgpool", record_idx=0)),
        ("backbone.layer1.0.conv1", 0, ["layer1.0.conv1"], Renamed(path="layer1.0.conv1", record_idx=0)),
        ("backbone.layer1.0.relu", 1, ["layer1.0.relu"], Renamed(path="layer1.0.relu", record_idx=1)),
        ("backbone.relu", 0, ["act1"], Renamed(path="act1", record_idx=0)),
        ("backbone.layer1.0.relu", 2, ["layer1.0.act3"], Renamed(path="layer1.0.act3", record_idx=0)),
        ("backbone.layer1.0.relu", 0, ["layer1.0.act3"], None),
        ("neck", 0, ["fc"], None),
        ("headxfc", 0, ["fc"], None),
    ],
)
def test_what_stands_for_a_path(path: str, call: int, known: list[str], found: Renamed | None) -> None:
    assert renamed(path, call, known) == found


@given(st.text(".abcfhdekgpnlyr1", max_size=20), st.sets(st.text("abcf.1", max_size=6), max_size=5))
def test_what_is_found_is_there(path: str, known: set[str]) -> None:
    found = renamed(path, 0, known)
    assert found is None or found.path in known


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "'resnet18' names no model: give 'timm:resnet18', 'torchvision:resnet18' or 'package.module:func"),
        ("timm:resnet_18x", "'timm:resnet_18x': timm has no model 'resnet_18x'. Did you mean '"),
        (
            "torchvision:resnet81",
            "'torchvision:resnet81': torchvision has no model 'resnet81'. Did you mean 'resnet18'",
        ),
        ("no.such.module:f", "'no.such.module:f' gives no model: ModuleNotFoundError: No module named 'no'"),
        ("torch.nn:Missing", "'torch.nn:Missing' gives no model: AttributeError: module 'torch.nn' has no attribute"),
        ("torch.nn:Linear", "'torch.nn:Linear' gives no model: TypeError"),
        ("builtins:dict", "'builtins:dict' gives a dict, not an nn.Module"),
    ],
)
def test_a_name_without_a_model(name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        named_model(name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("family", ["timm", "torchvision"])
def test_a_library_that_is_missing_is_named(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (family, f"{family}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SpecError, match=rf"'{family}:resnet18' needs {family} \(.*\): pip install"):
        named_model(f"{family}:resnet18")


def test_named_models_are_the_libraries_own() -> None:
    assert type(named_model("timm:resnet18")) is type(timm.create_model("resnet18"))
    assert next(named_model("torchvision:resnet18", "meta").parameters()).is_meta


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, KD + "lr = 3\n")
    assert main(["migrate", str(path), "--student", "timm:resnet18", "--teacher", "torchvision:resnet34"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(
        f"# note: {path}:13: lr: left out: it belongs to the training loop\nstudent_recorders:"
    )
    assert Spec.load(yaml.safe_load(printed.out)).student_recorders["fc"].source == "fc"
    output = tmp_path / "spec.yaml"
    assert main(["migrate", str(path), "--output", str(output)]) == 0
    assert capsys.readouterr() == ("", "")
    assert Spec.load(output).student_recorders["fc"].source == "head.fc"


def test_the_command_lists_what_it_cannot_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, KD.replace("tau=1", "tau=find()"))
    assert main(["migrate", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"not mapped: {path}:8: distiller.distill_losses.loss_kl.tau: is a call of 'find'")
    assert printed.out.startswith(f"# not mapped: {path}:8: ")
    assert Spec.load(yaml.safe_load(printed.out)).distill_losses["loss_kl"] == {
        "type": "KLDivergence",
        "loss_weight": 3,
    }
    path.write_text("def find():\n    return 5\n" + path.read_text())
    assert main(["migrate", str(path), "--execute"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["distill_losses"]["loss_kl"]["tau"] == 5
    path.write_text("student_recorders = dict(a=object(), b=dict(type='ModuleOutputs', source='x'))")
    assert main(["migrate", str(path), "--execute"]) == 1
    assert "student_recorders.a: is <object object at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.py"], "there is no such file"),
        (["config.py", "--student", "timm:no_such_model_at_all"], "timm has no model"),
        (["empty.py"], "has no distillation"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write(tmp_path, KD)
    (tmp_path / "empty.py").write_text("")
    assert main(["migrate", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_it_is_a_command_of_the_module() -> None:
    command = [sys.executable, "-m", "fxkd", "migrate", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--student MODEL" in done.stdout
    assert 'fxkd = "fxkd.__main__:main"' in (ROOT / "pyproject.toml").read_text()
