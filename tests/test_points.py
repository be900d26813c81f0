"""Paths: what is found where, and what is said when nothing is."""

import functools
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxkd.errors import PointError
from fxkd.points import Place, find_function, find_method, find_module, find_parameter, original
from tests.eager import toy_module
from tests.eager.toy_module import Toy, TwiceModel

TOY = "tests.eager.toy_module"


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
        self.fc = nn.Linear(2, 2)
        self.tied = nn.Linear(2, 2)
        self.tied.weight = self.fc.weight
        self.nothing = None
        self.register_module("empty", None)
        self.register_buffer("steps", torch.zeros(1))


def test_find_module() -> None:
    model = Deep()
    assert find_module(model, "") is model
    assert find_module(model, "layer1.1") is model.layer1[1]
    twice = TwiceModel()
    assert find_module(twice, "alias") is find_module(twice, "conv1") is twice.conv1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("layer1.2", r"no module 'layer1.2' in Deep: 'layer1' \(Sequential\) has '0', '1'. Did you mean 'layer1"),
        ("lair1", r"no module 'lair1' in Deep: it has 'layer1', 'fc', 'tied'. Did you mean 'layer1'"),
        ("fc.weights.x", r"'fc' \(Linear\) has no modules."),
        ("fc.weight", r"'fc.weight' is a parameter: record it with type 'Parameter'."),
        ("empty", "no module 'empty'"),
        ("layer1.", "no module 'layer1.'"),
        (3, "a path in a model is a string such as 'layer1.0.conv1', not 3."),
    ],
)
def test_find_module_errors(path: Any, message: str) -> None:
    with pytest.raises(PointError, match=message):
        find_module(Deep(), path)


def test_long_lists_are_cut() -> None:
    with pytest.raises(PointError, match=r"has '0'..'39'\."):
        find_module(nn.Sequential(*(nn.Identity() for _ in range(40))), "40")
    with pytest.raises(PointError, match=r"'part_11' and 28 more\."):
        find_module(nn.ModuleDict({f"part_{index}": nn.Identity() for index in range(40)}), "40")


def test_a_model_is_needed() -> None:
    with pytest.raises(PointError, match=r"needs the model that it is in: an nn.Module, not a NoneType"):
        find_module(None, "fc")


def test_find_parameter() -> None:
    model = Deep()
    assert find_parameter(model, "fc.weight") is find_parameter(model, "tied.weight") is model.fc.weight


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fc.wieght", r"no parameter 'fc.wieght' in Deep: 'fc' \(Linear\) has 'weight', 'bias'. Did you mean 'fc.weig"),
        ("fcc.weight", r"it has 'layer1.', 'fc.', 'tied.'.* Did you mean 'fc.weight'"),
        ("steps", "'steps' is a buffer, not a parameter."),
        ("layer1.1.weight", r"'layer1.1' \(ReLU\) has no parameters"),
        ("", "no parameter ''"),
    ],
)
def test_find_parameter_errors(path: str, message: str) -> None:
    with pytest.raises(PointError, match=message):
        find_parameter(Deep(), path)


def test_find_function() -> None:
    place = find_function(f"{TOY}.toy_func")
    assert place == Place(toy_module, "toy_func", f"{TOY}.toy_func")
    assert find_function(f"{TOY}.M.sqrt").owner is sys.modules["math"]
    assert find_function("torch.relu").owner is torch
    assert find_function(f"{TOY}.Toy.toy_func").owner is Toy


def test_find_function_prefers_what_the_program_would_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("from toy_package.mix import mix\n")
    (package / "mix.py").write_text("def mix(): return 1\ndef other(): return 2\n")
    (package / "broken.py").write_text("import no_such_library\n")
    (package / "wrong.py").write_text("1 / 0\n")
    (package / "lazy.py").write_text("def __getattr__(name): raise RuntimeError('no ' + name)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert find_function("toy_package.mix").name == "mix"
    assert find_function("toy_package.mix.other").owner is sys.modules["toy_package.mix"]
    for part, reason in [
        ("broken", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("wrong", "ZeroDivisionError: division by zero"),
    ]:
        with pytest.raises(PointError, match=f"'toy_package.{part}' cannot be imported: {reason}"):
            find_function(f"toy_package.{part}.f")
    with pytest.raises(PointError, match="'f' cannot be imported: RuntimeError: no f"):
        find_function("toy_package.lazy.f")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("toy_func", "'toy_func' is not a path of the form 'module.function': it needs at least one dot"),
        ("a..b", "'a..b' is not a path"),
        (7, "a path is a string such as 'module.function', not 7."),
        ("no_such_module.f", "'no_such_module' cannot be imported: there is no module of that name"),
        (f"{TOY}.toy_fnc", f"'{TOY}' has no 'toy_fnc', it has .*Did you mean 'toy_func'"),
        (f"{TOY}.Tou.toy_func", f"'{TOY}' has no 'Tou', it has .*Did you mean 'Toy'"),
        (f"{TOY}.NUMBER", "is an int, not a function"),
        (f"{TOY}.M", "is a module, not a function"),
        (f"{TOY}.NUMBER.f", "has no 'f'"),
        ("tests.eager.toy_modul.f", "'tests.eager' has no 'toy_modul', it has .*Did you mean 'toy_module'"),
    ],
)
def test_find_function_errors(path: Any, message: str) -> None:
    with pytest.raises(PointError, match=message):
        find_function(path)


def test_find_method() -> None:
    assert find_method(f"{TOY}.Toy.toy_func") == Place(Toy, "toy_func", f"{TOY}.Toy.toy_func")
    assert find_method(f"{TOY}.Toy.Inner.triple").owner is Toy.Inner
    assert find_method(f"{TOY}.SubToy.toy_func").owner is toy_module.SubToy
    for name in ("static", "named", "__init__", "twice"):
        assert find_method(f"{TOY}.Toy.{name}").name == name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Toy.toy_func", "'Toy.toy_func' is not a path of the form 'module.Class.method': it needs at least two dots"),
        (f"{TOY}.toy_func", f"'{TOY}' is a module, not a class; .* use FunctionOutputs or FunctionInputs"),
        (f"{TOY}.Toy.toy_fun", "'Toy' has no 'toy_fun', it has .*Did you mean 'toy_func'"),
        (f"{TOY}.Toy.size", "is a property, not a method"),
        (f"{TOY}.Toy.Inner.x", "'Inner' has no 'x', it has 'triple'"),
    ],
)
def test_find_method_errors(path: str, message: str) -> None:
    with pytest.raises(PointError, match=message):
        find_method(path)


def test_original_is_called_as_a_wrapper_is() -> None:
    def of(name: str) -> Any:
        return original(find_method(f"{TOY}.SubToy.{name}"))

    assert of("double") is Toy.double
    assert of("double")(Toy(), 4) == 8
    assert of("static")(4) == 5
    assert of("named")(toy_module.SubToy, 4) == ("SubToy", 4)
    assert of("twice")(Toy(), 4) == 8
    assert original(find_function(f"{TOY}.toy_func")) is toy_module.toy_func
    half = types.SimpleNamespace(half=functools.partial(round, ndigits=1))
    assert original(Place(half, "half", "half"))(1.26) == 1.3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit.script
def test_paths_into_a_scripted_module() -> None:
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(2, 2))))
    assert isinstance(find_module(model, "0.0"), torch.jit.ScriptModule)
    assert find_parameter(model, "0.0.weight").shape == (2, 2)
    with pytest.raises(PointError, match=r"no parameter '0\.1\.weight' in Sequential: '0' .* has '0\.'"):
        find_parameter(model, "0.1.weight")
    with pytest.raises(PointError, match=r"no module '0\.1' in Sequential: '0' \(RecursiveScriptModule\) has '0'"):
        find_module(model, "0.1")
