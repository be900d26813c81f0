"""Specs in files: every problem with its line, and every file that is no spec refused in one sentence."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch
import yaml
from torch import nn

import fxkd
from fxkd.errors import Problems, SpecError
from fxkd.spec import Spec
from fxkd.spec.yaml_file import read_yaml

SIX = """\
    student_recorders:
      fc: {type: ModuleOutputs, source: fc}
    teacher_recorders:
      fc:
        type: ModuleOutputs
        source: fc
    distill_losses:
      loss_kl:
        type: KLDivergence
        tau: 4
    loss_forward_mappings:
      loss_kl:
        preds_S: {from_student: true, recorder: fc}
        preds_T: {from_student: false, recorder: fc}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    """Give the problems of a file, without the folder it is in."""
    with pytest.raises(SpecError) as caught:
        Spec.load(path)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def test_data_is_what_yaml_says(tmp_path: Path) -> None:
    text = (
        dedent(SIX)
        + "more: {<<: {a: 1, b: 2}, b: 3, on: 2001-01-01, list: [1, [2.5, null]]}\nshared: [&x {k: 1}, *x]\n"
    )
    path, report = write(tmp_path, text), Problems()
    data, lines = read_yaml(path, report)
    assert data == yaml.safe_load(text)
    assert report.found == []
    assert {place: line.rpartition(":")[2] for place, line in lines.items()}.items() >= {
        "student_recorders": "1", "student_recorders.fc.source": "2", "teacher_recorders.fc.type": "5",
        "distill_losses.loss_kl.tau": "10", "more.list[1]": "15", "shared[0].k": "16",
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: KLDivergence", "type: KLDivergense", "spec.yaml:8: distill_losses.loss_kl: no loss is called"),
        ("tau: 4", "taw: 4", "spec.yaml:8: distill_losses.loss_kl: KLDivergence: got an unexpected"),
        ("distill_losses", "distil_losses", "spec.yaml:7: distil_losses: unknown key"),
        (
            "type: ModuleOutputs\n        source",
            "type: ModuleOutput\n        source",
            "spec.yaml:5: teacher_recorders.fc.type: no recorder is of type",
        ),
        ("preds_T:", "pred_T:", "spec.yaml:14: loss_forward_mappings.loss_kl.pred_T: the loss takes"),
        ("      fc:\n", "      5:\n", "spec.yaml:4: teacher_recorders.5: the name is 5; a name is a text"),
        ("      fc:\n", "      yes:\n", "spec.yaml:3: teacher_recorders.True: the name is True; a name is a text"),
    ],
)
def test_every_problem_has_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SIX
    found = problems(write(tmp_path, SIX.replace(old, new)))
    assert found[0].startswith(message), found


def test_the_line_of_a_pair(tmp_path: Path) -> None:
    text = """\
    pairs:
      - student: a
        teacher: a
        loss: {type: L2Loss}
      - student: b
        teacher: {type: ModuleOutput, source: b}
        loss: {type: L2Loss}
        student_connector: {type: LinearConector}
      - {student: c, teacher: c, loss: {type: L3Loss}}
    """
    assert [problem.partition(": ")[0] for problem in problems(write(tmp_path, text))] == [
        "spec.yaml:9", "spec.yaml:6", "spec.yaml:8",
    ]  # fmt: skip


def test_paths_that_are_not_in_a_model_have_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, "pairs:\n  - student: fc\n    teacher: fcc\n    loss: {type: L2Loss}\n")
    model, teacher = nn.Sequential(), nn.Sequential()
    model.add_module("fc", nn.Linear(2, 2))
    teacher.add_module("fc", nn.Linear(2, 2))
    teacher.add_module("never", nn.Linear(2, 2))
    with pytest.raises(SpecError, match=r"spec\.yaml:3: teacher_recorders\.fcc\.source: no module 'fcc'"):
        fxkd.prepare(model, teacher, path)


def test_points_that_are_never_called_have_their_line(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)  # type: ignore[no-any-return]

    path = write(tmp_path, "pairs:\n  - student: unused\n    teacher: fc\n    loss: {type: L2Loss}\n")
    with pytest.raises(SpecError, match=r"spec\.yaml:2: student_recorders\.unused\.source: 'unused' exists, but"):
        fxkd.prepare(Model(), Model(), path, example_inputs=torch.ones(1, 2))


def test_options_that_a_class_refuses_have_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, SIX.replace("tau: 4", "tau: 0"))
    model, teacher = nn.Sequential(), nn.Sequential()
    model.add_module("fc", nn.Linear(2, 2))
    teacher.add_module("fc", nn.Linear(2, 2))
    with pytest.raises(SpecError, match=r"spec\.yaml:8: distill_losses\.loss_kl: .*tau"):
        fxkd.prepare(model, teacher, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: [1, 2\nc: 3\n",
            r"^spec\.yaml:3:2: is not YAML: while parsing a flow sequence, expected ',' or '\]'",
        ),
        ("a: 1\n\tb: 2\n", r"^spec\.yaml:2:1: is not YAML: while scanning for the next token, found character"),
        ("a: 'x\n", r"^spec\.yaml:2:1: is not YAML: while scanning a quoted scalar, found unexpected end"),
        ("a: 1\n---\nb: 2\n", r"^spec\.yaml:2:1: is not YAML: expected a single document"),
        ("a: *x\n", r"^spec\.yaml:1:4: is not YAML: found undefined alias 'x'"),
        ("a: !Model x\n", r"^spec\.yaml:1:4: is not YAML: could not determine a constructor for the tag '!Model'"),
        ("? [a]\n: 1\n", r"^spec\.yaml:1:3: is not YAML: while constructing a mapping, found unhashable key"),
        ("a: 2001-99-99\n", r"^spec\.yaml: is not YAML that can be read: month must be in 1\.\.12"),
        ("a: \x01\n", r"^spec\.yaml: is not YAML: unacceptable character"),
        ("[" * 3000, r"^spec\.yaml: is not YAML that can be read: maximum recursion depth"),
        ("", r"^spec\.yaml: is empty; a spec is a mapping"),
        ("# nothing\n", r"^spec\.yaml: is empty; a spec is a mapping"),
        ("- 1\n", r"^spec\.yaml: is a list; a spec is a mapping with 'pairs'"),
        ("layer1\n", r"^spec\.yaml: is a str; a spec is a mapping with 'pairs'"),
        ("7: 1\n", r"^spec\.yaml:1: 7: unknown key"),
        ("pairs:\n  - &a [*a]\n", r"^spec\.yaml:2: pairs\[0\]: is \[\[\.\.\.\]\]; give a mapping"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path: Path, text: str, message: str) -> None:
    (found,) = problems(write(tmp_path, text))
    assert re.search(message, found), found
    assert "\n" not in found


def test_two_names_alike(tmp_path: Path) -> None:
    text = SIX + "    distill_losses: {loss_kl: {type: L2Loss, loss_weight: 1, loss_weight: 2}}\n"
    found = problems(write(tmp_path, text))
    assert found[:2] == [
        "spec.yaml:15: distill_losses: is there twice, on line 7 and on line 15",
        "spec.yaml:15: distill_losses.loss_kl.loss_weight: is there twice, on line 15 and on line 15",
    ]


def test_what_is_no_name_twice(tmp_path: Path) -> None:
    path = write(tmp_path, SIX + "    connectors: {a.b: {type: X}, a: {b: {type: X}, '1': 2, 1: 3}}\n")
    assert not [problem for problem in problems(path) if "twice" in problem]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"a: \xff\xfe")
    assert problems(path)[0].startswith("spec.yaml: is not text in UTF-8: 'utf-8' codec can't decode byte 0xff")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, SIX)
    (tmp_path / "other.yml").touch()
    (tmp_path / "model.pt").touch()
    assert problems(tmp_path / "spec.yml") == [
        "spec.yml: there is no such file. Did you mean 'spec.yaml'?",
    ]
    assert problems(tmp_path / "distil.json")[0].endswith("' has 'other.yml', 'spec.yaml'.")
    assert problems(tmp_path / "none/spec.yaml")[0].startswith("spec.yaml: there is no such file. There is no folder")
    with pytest.raises(SpecError, match=r"is a folder; give the YAML file\. .* has 'other\.yml', 'spec\.yaml'\."):
        Spec.load(tmp_path)
    with pytest.raises(SpecError, match="is not text in UTF-8: embedded null byte"):
        Spec.load("spec\0.yaml")


def test_a_name_that_is_too_long_for_a_file() -> None:
    with pytest.raises(SpecError, match="cannot be read: File name too long"):
        Spec.load("pairs: " * 200)
