"""Files that inherit from files: mmengine's rules, in Python and in YAML."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fxkd.configs.python_file import read_python
from fxkd.errors import Problems, SpecError
from fxkd.spec import Spec
from fxkd.spec.yaml_file import read_yaml

BASE_PY = """\
model = dict(a=1, b=dict(c=2, d=[1, 2]), e=[dict(x=1), dict(x=2)])
hooks = [dict(type='A')]
path = 'F:\\\\模型'
"""
BASE_YAML = "model: {a: 1, b: {c: 2, d: [1, 2]}, e: [{x: 1}, {x: 2}]}\nhooks: [{type: A}]\npath: 'F:\\模型'\n"
CASES = [
    ("model = dict(b=dict(c=3))", {"model": {"a": 1, "b": {"c": 3, "d": [1, 2]}, "e": [{"x": 1}, {"x": 2}]}}),
    ("model = dict(b=dict(_delete_=True, f=3))", {"model": {"a": 1, "b": {"f": 3}, "e": [{"x": 1}, {"x": 2}]}}),
    ("model = dict(_delete_=True, b=dict(g=1))", {"model": {"b": {"g": 1}}}),
    ("model = dict(b=dict(d=[3]))", {"model": {"a": 1, "b": {"c": 2, "d": [3]}, "e": [{"x": 1}, {"x": 2}]}}),
    ("model = dict(a=dict(_delete_=True, h=1))", {"model": {"a": {"h": 1}, "b": {"c": 2, "d": [1, 2]}, "e": [{"x": 1}, {"x": 2}]}}),  # noqa: E501
    ("model = dict(e={'1': dict(x=5)})", {"model": {"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": [{"x": 1}, {"x": 5}]}}),
    ("new = dict(_delete_=True, deep=dict(_delete_=False, k=[dict(_delete_=True, z=1)]))", {"new": {"deep": {"k": [{"z": 1}]}}}),  # noqa: E501
    ("hooks = [dict(type='B')]", {"hooks": [{"type": "B"}]}),
    ("model = None", {"model": None}),
    ("c = {'r': '{{_base_.model.b}}'}", {"c": {"r": {"c": 2, "d": [1, 2]}}}),
    ("c = 'x-{{ _base_.model.b.c }}-{{_base_.path}}'", {"c": "x-2-F:\\模型"}),
    ("c = '{{_base_.hooks.0.type}}'", {"c": "A"}),
]  # fmt: skip


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_yaml", ".yaml").replace("_py", ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


def data_of(path: Path) -> tuple[Any, list[str], list[str]]:
    problems, notes = Problems(), Problems()
    data, _ = (read_python if path.suffix == ".py" else read_yaml)(path, problems, notes)
    folder = f"{path.parent}/"
    return data, *([one.replace(folder, "") for one in found.found] for found in (problems, notes))


def in_yaml(code: str) -> str:
    """Write an assignment of Python as YAML."""
    import yaml

    names: dict[str, Any] = {}
    exec(code, names)
    return yaml.safe_dump({key: value for key, value in names.items() if key != "__builtins__"}, allow_unicode=True)


@pytest.mark.parametrize(("code", "expected"), CASES)
def test_what_is_written_over_what(tmp_path: Path, code: str, expected: dict[str, Any]) -> None:
    whole = {"model": {"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": [{"x": 1}, {"x": 2}]}}
    whole |= {"hooks": [{"type": "A"}], "path": "F:\\模型"} | expected
    write(tmp_path, base_py=BASE_PY, base_yaml=BASE_YAML, own_py=f"_base_ = './base.py'\n{code}\n")
    write(tmp_path, own_yaml=f"_base_: [base.yaml]\n{in_yaml(code)}")
    assert data_of(tmp_path / "own.py") == (whole, [], [])
    assert data_of(tmp_path / "own.yaml") == (whole, [], [])


@pytest.mark.parametrize("code", ["c = _base_.model.b.d[1] + 3", "c = {{_base_.model.b.c}} + 3", "c = _base_.hooks"])
def test_references_in_python(tmp_path: Path, code: str) -> None:
    write(tmp_path, base_py=BASE_PY, own_py=f"_base_ = ('base.py',)\n{code}\n")
    data, problems, _ = data_of(tmp_path / "own.py")
    assert data["c"] == (5 if "+" in code else [{"type": "A"}])
    assert problems == []
    executed, _ = read_python(tmp_path / "own.py", Problems(), execute=True)
    assert executed == data


def test_bases_have_bases_and_folders(tmp_path: Path) -> None:
    write(tmp_path, a_py="x = 1\ny = dict(p=1)\n", sub__b_py="_base_ = '../a.py'\ny = dict(q=2)\n")
    write(tmp_path, other_py="z = 3\n", own_py="_base_ = ['sub/b.py', '.\\\\other.py']\ny = dict(p=5)\n")
    problems = Problems()
    data, lines = read_python(tmp_path / "own.py", problems)
    assert problems.found == []
    assert data == {"x": 1, "y": {"p": 5, "q": 2}, "z": 3}
    shown = {place: line.rpartition("/")[2] for place, line in lines.items()}
    assert shown == {"x": "a.py:1", "y": "own.py:2", "y.p": "own.py:2", "y.q": "b.py:2", "z": "other.py:1"}


@pytest.mark.parametrize("suffix", ["py", "yaml"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"own": "b", "b": "c", "c": "own"}, "{b_c}:1: _base_: the files inherit from each other in a circle: own.{s} -> b.{s} -> c.{s} -> own.{s}"),  # noqa: E501
        ({"own": "own"}, "own.{s}:1: _base_: the files inherit from each other in a circle: own.{s} -> own.{s}"),
        ({"own": "bas", "base": ""}, "own.{s}:1: _base_: bas.{s}: there is no such file. Did you mean 'base.{s}'"),
        ({"own": "no/base"}, "own.{s}:1: _base_: no/base.{s}: there is no such file. There is no folder"),
    ],
)  # fmt: skip
def test_bases_that_are_refused(tmp_path: Path, suffix: str, files: dict[str, str], message: str) -> None:
    sign = " =" if suffix == "py" else ":"
    for name, base in files.items():
        inherits = f"_base_{sign} '{base}.{suffix}'\n" if base else ""
        write(tmp_path, **{f"{name}_{suffix}": f"{inherits}{name}{sign} 1\n"})
    _, problems, _ = data_of(tmp_path / f"own.{suffix}")
    assert len(problems) == 1
    assert problems[0].startswith(message.format(s=suffix, b_c=f"c.{suffix}")), problems


@pytest.mark.parametrize(
    ("base", "own", "message"),
    [
        ("a = 1", "a = dict(b=1)", "own.py:2: a: is a mapping, and the base has a int there (base.py:1): add '_delete_: True' to replace it"),  # noqa: E501
        ("a = [1]", "a = {'3': dict(b=1)}", "own.py:2: a[3]: the base's list has 1 entries (base.py:1)"),
        ("a = dict(b=dict(c=1))", "a = dict(b=dict(c=dict(d=1)))", "own.py:2: a.b.c: is a mapping, and the base has a int there"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_cannot_be_merged(tmp_path: Path, base: str, own: str, message: str) -> None:
    write(tmp_path, base_py=base, own_py=f"_base_ = 'base.py'\n{own}\n")
    (problem,) = data_of(tmp_path / "own.py")[1]
    assert problem.startswith(message)


def test_two_bases_have_no_key_in_common(tmp_path: Path) -> None:
    write(tmp_path, a_py="x = 1", b_py="x = 2", own_py="_base_ = ['a.py', 'b.py']")
    told = "own.py:1: _base_: 'x' is in 'b.py' (b.py:1) and in another base (a.py:1); two bases have no key in common"
    assert data_of(tmp_path / "own.py")[1] == [told]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("3", "own.py:1: _base_: is 3; give the path of a file, or a list of them"),
        ("find()", "own.py:1: _base_: is a call of 'find'; give the path of a file, or a list of them"),
        ("'base.json'", "own.py:1: _base_: 'base.json' has the suffix '.json': a Python config inherits from Python"),
    ],
)
def test_what_is_no_base(tmp_path: Path, given: str, message: str) -> None:
    write(tmp_path, own_py=f"_base_ = {given}\n")
    (problem,) = data_of(tmp_path / "own.py")[1]
    assert problem.startswith(message)


@pytest.mark.parametrize("suffix", ["py", "yaml"])
def test_bases_of_other_packages_are_noted(tmp_path: Path, suffix: str) -> None:
    sign = " =" if suffix == "py" else ":"
    write(tmp_path, **{f"own_{suffix}": f"_base_{sign} ['mmcls::a.py']\nx{sign} 1\n"})
    told = f"own.{suffix}:1: _base_: 'mmcls::a.py' belongs to another package and is not followed"
    assert data_of(tmp_path / f"own.{suffix}") == ({"x": 1}, [], [told])


def test_a_yaml_base_is_a_mapping(tmp_path: Path) -> None:
    write(tmp_path, base_yaml="[1]\n", own_yaml="_base_: base.yaml\n")
    assert data_of(tmp_path / "own.yaml")[1] == ["own.yaml:1: _base_: 'base.yaml' is a list; a base is a mapping"]
    write(tmp_path, own_yaml="_base_: base.yaml\na: &a [*a]\n")
    assert data_of(tmp_path / "own.yaml")[1] == ["own.yaml: is nested without end: something in it holds itself"]
    write(tmp_path, base_yaml="a: 1\n", own_yaml="_base_: base.yaml\nb: '{{_base_.c}}'\n")
    assert data_of(tmp_path / "own.yaml")[1][0].startswith("own.yaml:2: b: is '_base_.c', which no base that was read")


def test_a_spec_inherits(tmp_path: Path) -> None:
    base = """\
    student_recorders: {fc: {type: ModuleOutputs, source: fc}}
    teacher_recorders: {fc: {type: ModuleOutputs, source: fc}}
    distill_losses: {loss_kl: {type: KLDivergence, tau: 4}}
    loss_forward_mappings:
      loss_kl:
        preds_S: {from_student: true, recorder: fc}
        preds_T: {from_student: false, recorder: fc}
    """
    write(tmp_path, base_yaml=base, own_yaml="_base_: base.yaml\ndistill_losses: {loss_kl: {tau: 2}}\n")
    spec = Spec.load(tmp_path / "own.yaml")
    assert spec.distill_losses == {"loss_kl": {"type": "KLDivergence", "tau": 2}}
    write(tmp_path, own_yaml="_base_: base.yaml\nstudent_recorders: {fc: {type: ModuleOutput}}\n")
    with pytest.raises(SpecError, match=r"own\.yaml:2: student_recorders\.fc\.type: no recorder is of type"):
        Spec.load(tmp_path / "own.yaml")
