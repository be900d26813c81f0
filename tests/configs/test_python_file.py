"""Configs in Python: what is read is what an execution gives, nothing is executed, and every part has its line."""

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fxkd.configs.located import Unknown
from fxkd.configs.python_file import read_python
from fxkd.errors import Problems
from tests.configs.programs import ONLY_EXECUTED, PLAIN, agrees, programs


def read(folder: Path, text: str, **options: Any) -> tuple[Any, Problems, Problems]:
    path = folder / "config.py"
    path.write_text(dedent(text), encoding="utf-8")
    problems, notes = Problems(), Problems()
    data, _ = read_python(path, problems, notes, **options)
    return data, problems, notes


def executed(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(text, names)
    return {name: value for name, value in names.items() if name[:2] != "__" and not callable(value)}


@given(text=programs())
def test_what_is_read_is_what_an_execution_gives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "program.py"
    try:
        real = executed(text)
    except Exception:  # noqa: BLE001 (a program that fails has no values)
        return
    assume("...]" not in repr(real) and "...}" not in repr(real))  # nothing holds itself
    path.write_text(text, encoding="utf-8")
    data, _ = read_python(path, Problems())
    assert data is not None
    assert list(data) == list(real)
    assert not [value for value in data.values() if isinstance(value, Unknown)]
    assert all(agrees(data[name], real[name]) for name in real), (text, data)
    assert repr(data) == repr(real)


@given(text=programs(PLAIN + ONLY_EXECUTED))
def test_what_is_known_is_true(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "program.py"
    try:
        real = executed(text)
    except Exception:  # noqa: BLE001 (a program that fails has no values)
        return
    assume("...]" not in repr(real) and "...}" not in repr(real))  # nothing holds itself
    path.write_text(text, encoding="utf-8")
    data, _ = read_python(path, Problems())
    assert data is not None
    for name, value in data.items():
        assert isinstance(value, Unknown) or agrees(value, real[name]), (text, name, value, real[name])


def test_execution_gives_the_same(tmp_path: Path) -> None:
    text = "a = dict(b=[1, 2], c=('x', None))\nd = {**a, 'e': f'{3:02d}'}\n"
    assert read(tmp_path, text)[0] == read(tmp_path, text, execute=True)[0] == executed(text)


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system({command!r})",
        "x = dict(a=__import__('os').system({command!r}))",
        "import os\nos.system({command!r})",
        "x = [__import__('os').system({command!r}) for _ in range(1)]",
        "x = f\"{{__import__('os').system({command!r})}}\"",
        "eval('__import__(\"os\").system(' + repr({command!r}) + ')')",
        "x = (lambda: __import__('os').system({command!r}))()",
        "if True:\n    __import__('os').system({command!r})",
        "class X:\n    y = __import__('os').system({command!r})",
        "def f(x=__import__('os').system({command!r})): pass",
        "@__import__('os').system({command!r})\nclass X: pass",
        "x = '{{0.__class__}}'.format(__import__('os').system({command!r}))",
        "dict.update = __import__('os').system({command!r})",
        "x = {{}}\nx[__import__('os').system({command!r})] = 1",
        "_base_ = __import__('os').system({command!r})",
        "assert __import__('os').system({command!r})",
        "x: __import__('os').system({command!r}) = 1",
    ],
)
def test_nothing_is_executed(tmp_path: Path, code: str) -> None:
    proof = tmp_path / "executed"
    read(tmp_path, code.format(command=f"touch {proof}"))
    assert not proof.exists()


def test_a_file_that_may_be_executed_is(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    data, problems, _ = read(tmp_path, f"import os\nx = os.system('touch {proof}')\ndef f(): pass\n", execute=True)
    assert proof.exists()
    assert data == {"x": 0}
    assert problems.found == []


def test_large_results_are_not_computed(tmp_path: Path) -> None:
    data, _, _ = read(tmp_path, "a = 9 ** 9 ** 9\nb = 'x' * 10 ** 12\nc = [0] * 10 ** 12\nd = 2 ** 10\n")
    assert [type(data[name]) for name in "abc"] == [Unknown] * 3
    assert data["d"] == 1024
    assert data["a"].why == "arithmetic with a very large result"


@pytest.mark.parametrize(
    ("code", "line", "why"),
    [
        ("x = build()", 1, "a call of 'build'"),
        ("x = os.environ['A']", 1, "the name 'os', which the file does not define"),
        ("channels = 3\nx = chanels", 2, "the name 'chanels', which the file does not define; did you mean 'channels'"),
        ("import os\nx = os.getcwd()", 2, "a call of 'os.getcwd'"),
        ("import os\nx = os.name", 2, "the name 'os', which is an import"),
        ("x = [i for i in (1, 2)]", 1, "a comprehension"),
        ("x = 1 if True else 2", 1, "an 'if'"),
        ("if True:\n    x = 1", 1, "an 'if'"),
        ("for x in (1, 2):\n    pass", 1, "a 'for'"),
        ("x = lambda: 1", 1, "a lambda"),
        ("x = 1 > 2", 1, "the code '1 > 2'"),
        ("y = {}\nx = y['a']", 2, "an error (KeyError: 'a')"),
        ("x = 1 / 0", 1, "an error (ZeroDivisionError: division by zero)"),
        ("x = '{0.real}'.format(1)", 1, "a call of \"'{0.real}'.format\""),
        ("x = []\nx.append([x])", 2, "a value that holds itself"),
        ("x = {}\nx['y'] = {'z': x}", 2, "a value that holds itself"),
        ("x = {{_base_.tau}}", 1, "'_base_.tau', which no base that was read defines"),
        ("x = '{{_base_.tau}}'", 1, "'_base_.tau', which no base that was read defines"),
    ],
)
def test_what_is_not_known_says_why_and_where(tmp_path: Path, code: str, line: int, why: str) -> None:
    data, problems, _ = read(tmp_path, code)
    value = data["x"]
    assert isinstance(value, Unknown)
    assert value.why == why
    assert value.line == f"{tmp_path}/config.py:{line}"
    assert problems.found == []


def test_an_unknown_part_leaves_the_others_known(tmp_path: Path) -> None:
    data, _, notes = read(tmp_path, "a = dict(b=1, c=[2, build()], d=dict(e=f()))\nprint(a)\nregister(1)\n")
    assert data["a"]["b"] == 1
    assert data["a"]["c"] == [2, Unknown("a call of 'build'", f"{tmp_path}/config.py:1")]
    assert data["a"]["d"] == {"e": Unknown("a call of 'f'", f"{tmp_path}/config.py:1")}
    assert notes.found == [f"{tmp_path}/config.py:3: a call of 'register' was not executed"]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("'./work_dirs/{}_{:.2f}.pth'.format('r18', 0.5)", "./work_dirs/r18_0.50.pth"),
        ("'{:>{}}|{{}}'.format('x', 3)", "  x|{}"),
        ("f'{1.5!r:>6}{2:0{4}d}'", "   1.50002"),
        ("'%s/%05.1f' % ('a', 2)", "a/002.0"),
        ("'-'.join(['a', 'b'])", "a-b"),
        ("'{:999999999}'.format(1)", None),
        ("f'{1:999999999}'", None),
        ("'%999999999d' % 1", None),
        ("'{0.__class__}'.format(1)", None),
        ("'{0[a]}'.format(dict(a=1))", None),
    ],
)
def test_texts_put_together(tmp_path: Path, code: str, value: str | None) -> None:
    data, _, _ = read(tmp_path, f"x = {code}")
    assert isinstance(data["x"], Unknown) if value is None else data["x"] == value == eval(code)


def test_every_part_has_its_line(tmp_path: Path) -> None:
    text = """\
    losses = dict(
        a=dict(type='L2Loss'),
        b=dict(
            type='KLDivergence',
            tau=4))
    losses['c'] = {'x': [1,
                         2]}
    model = dict(distiller=losses)
    """
    (tmp_path / "config.py").write_text(dedent(text))
    _, lines = read_python(tmp_path / "config.py", Problems())
    numbers = {place: int(line.rpartition(":")[2]) for place, line in lines.items()}
    assert numbers.items() >= {
        "losses": 1, "losses.a": 2, "losses.b.type": 4, "losses.b.tau": 5, "losses.c": 6, "losses.c.x[1]": 7,
        "model": 8, "model.distiller": 1, "model.distiller.b.tau": 5, "model.distiller.c.x[0]": 6,
    }.items()  # fmt: skip


def test_texts_keep_what_is_in_them(tmp_path: Path) -> None:
    text = "a = 'F:\\\\模型权重\\\\x.pth'\nb = r'F:\\模型\\x.pth'\nc = 'F:\\模型'\nd = '''é\n'''\n"
    data, problems, _ = read(tmp_path, text)
    assert problems.found == []
    assert data == {"a": "F:\\模型权重\\x.pth", "b": "F:\\模型\\x.pth", "c": "F:\\模型", "d": "é\n"}


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("a = 1\n", encoding="utf-8-sig")
    assert read_python(path, Problems())[0] == {"a": 1}


def test_names_of_the_file(tmp_path: Path) -> None:
    data, _, _ = read(tmp_path, "a = '{{ fileBasenameNoExtension }}/x'\nb = '{{fileDirname}}'\nc = '{{other}}'\n")
    assert data == {"a": "config/x", "b": str(tmp_path), "c": "{{other}}"}


def test_config_dict_is_a_dict(tmp_path: Path) -> None:
    text = "from mmengine import ConfigDict\na = ConfigDict(b=dict(c=1))\nd = a.b.c\na.e = 2\ndel d\n"
    assert read(tmp_path, text)[0] == {"a": {"b": {"c": 1}, "e": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = dict(\n", "config.py:1: is not Python: '(' was never closed"),
        ("a = dict(type='x', ...)\n", "config.py:1: is not Python: positional argument follows keyword argument"),
        ("a = 'x\0y'\n", "config.py: is not Python: source code string cannot contain null bytes"),
        ("a = " + "(" * 300 + ")" * 300, "config.py:1: is not Python: too many nested parentheses"),
    ],
)
def test_what_is_not_python(tmp_path: Path, text: str, message: str) -> None:
    data, problems, _ = read(tmp_path, text)
    assert data is None
    (found,) = problems.found
    assert found == f"{tmp_path}/{message}"


def test_an_error_of_an_executed_file_has_its_line(tmp_path: Path) -> None:
    _, problems, _ = read(tmp_path, "a = 1\nb = a / 0\n", execute=True)
    assert problems.found == [f"{tmp_path}/config.py:2: ZeroDivisionError, as it was executed: division by zero"]


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.py"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems = Problems()
    data, _ = read_python(path, problems)
    assert (data is None) == bool(problems.found)
    assert os.path.exists(path)
