"""Points that exist and are never called: the message says why, and what to name instead."""

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import fxkd
from fxkd.capture import Inputs, PointName
from fxkd.errors import CaptureError, SpecError
from fxkd.unreached import why_unreached
from tests.support.oracle import assert_same

OPS = """
import torch

def squash(x):
    return torch.tanh(x)

def unused(x):
    return x

class Base:
    def mix(self, x):
        return x * 2

    def plain(self, x):
        return x + 1

class Sub(Base):
    def mix(self, x):
        return x * 3
"""
MODEL = """
from torch import nn
from toy_points import ops
from toy_points.ops import Sub, squash
from toy_points.ops import squash as flat

class Imported(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.helper = nn.Linear(4, 4), Sub()

    def forward(self, x):
        return self.helper.plain(self.helper.mix(squash(self.fc(x))))

class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return flat(self.fc(x))

class OnlyTraining(Renamed):
    def forward(self, x):
        x = self.fc(x)
        return ops.squash(x) if self.training else x

class OnlyTrainingRenamed(Renamed):
    def forward(self, x):
        x = self.fc(x)
        return squash(x) if self.training else x

class Holds(Renamed):
    def __init__(self):
        super().__init__()
        self.act = ops.squash

    def forward(self, x):
        return self.act(self.fc(x))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package whose model file imports a function from another file."""
    folder = tmp_path / "toy_points"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "ops.py").write_text(OPS)
    (folder / "model_file.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("toy_points.model_file")
    for name in [name for name in sys.modules if name.startswith("toy_points")]:
        del sys.modules[name]


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def why(model: nn.Module, kind: str, path: str) -> str:
    """Give the reason, without the first part, which is always the same."""
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    message = why_unreached(model, "student", PointName(kind, path), Inputs((batch(),)))
    assert [module.training for module in model.modules()] == flags
    assert_same(state, dict(model.state_dict()))
    first = f"{path!r} exists, but the student does not call it in its forward"
    assert message.startswith(first)
    return message.removeprefix(first)


# Functions and methods


def test_a_function_named_where_it_is_defined(toy: ModuleType) -> None:
    reason = " under this name: it calls it as 'toy_points.model_file.squash'; name that"
    assert why(toy.Imported(), "FunctionOutputs", "toy_points.ops.squash") == reason
    spec = {"student_recorders": {"a": {"type": "FunctionOutputs", "source": "toy_points.ops.squash"}}}
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(toy.Imported(), toy.Imported(), spec, example_inputs=batch())
    assert caught.value.problems == (
        "student_recorders.a.source: 'toy_points.ops.squash' exists, but the student does not call it in its forward "
        "under this name: it calls it as 'toy_points.model_file.squash'; name that",
    )


def test_the_right_path_is_right(toy: ModuleType) -> None:
    student = toy.Imported()
    spec = {"student_recorders": {"a": {"type": "FunctionOutputs", "source": "toy_points.model_file.squash"}}}
    distiller = fxkd.prepare(student, toy.Imported(), spec, example_inputs=batch(), return_records=True)
    assert_same(distiller(batch()).records["student"]["a"][0], torch.tanh(student.fc(batch())))


def test_a_function_under_another_name(toy: ModuleType) -> None:
    asked = "toy_points.ops.squash"
    assert why(toy.Renamed(), "FunctionInputs", asked).endswith("calls it as 'toy_points.model_file.flat'; name that")


def test_a_function_that_only_training_calls(toy: ModuleType) -> None:
    asked = "toy_points.ops.squash"
    assert why(toy.OnlyTraining().eval(), "FunctionOutputs", asked) == " in eval mode; it does in train mode"
    assert why(toy.OnlyTrainingRenamed().eval(), "FunctionOutputs", asked) == (
        " in eval mode; it does in train mode, as 'toy_points.model_file.squash'; name that"
    )


def test_a_function_that_a_module_holds(toy: ModuleType) -> None:
    model, asked = nn.Sequential(toy.Holds()), "toy_points.ops.squash"
    assert why(model, "FunctionOutputs", asked) == (
        ": the module '0' holds it as 'act', so that no name is looked up when it is called; name a module instead"
    )
    model[0].act = functools.partial(model[0].act)
    assert "': the module '0' holds it as 'act'"[1:] in why(model, "FunctionOutputs", asked)


def test_a_function_that_nobody_calls(toy: ModuleType) -> None:
    reason = ", neither in train nor in eval mode, with these inputs"
    assert why(toy.Imported(), "FunctionOutputs", "toy_points.ops.unused") == reason
    assert why(toy.Imported(), "FunctionOutputs", "toy_points.model_file.flat") == (
        " under this name: it calls it as 'toy_points.model_file.squash'; name that"
    )


def test_a_method_that_a_class_overrides(toy: ModuleType) -> None:
    reason = " under this name: it calls it as 'toy_points.ops.Sub.mix'; name that"
    assert why(toy.Imported(), "MethodOutputs", "toy_points.ops.Base.mix") == reason


def test_an_inherited_method_may_be_named_by_the_class_that_has_it(toy: ModuleType) -> None:
    student = toy.Imported()
    spec = {"student_recorders": {"a": {"type": "MethodOutputs", "source": "toy_points.ops.Sub.plain"}}}
    distiller = fxkd.prepare(student, toy.Imported(), spec, example_inputs=batch(), return_records=True)
    assert_same(distiller(batch()).records["student"]["a"][0], student(batch()))


# Modules


class Parts(nn.Module):
    """Every way to have a module and not to call it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.named = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
        self.attention = nn.MultiheadAttention(4, 2)
        self.passed = nn.Linear(4, 4)
        self.auxiliary = nn.Linear(4, 4)
        self.inference = nn.Linear(4, 4)
        self.dead = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        x = self.scripted(self.named["a"](x))
        x = self.attention(x, x, x)[0]
        x = self.passed.forward(x)
        return self.auxiliary(x) if self.training else self.inference(x)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.script
        yield Parts()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("layers", ": a ModuleList only holds others; name one of them: it has '0'..'2'"),
        ("named", ": a ModuleDict only holds others; name one of them: it has 'a', 'b'"),
        (
            "scripted.0",
            ": it is a part of 'scripted', a RecursiveScriptModule, which runs as one piece; name 'scripted' instead",
        ),
        (
            "attention.out_proj",
            ": 'attention' (MultiheadAttention) is called and does not call it, although it may use its parameters; "
            "name 'attention', or record a parameter with type 'Parameter'",
        ),
        (
            "passed",
            ": it calls the 'forward' of it directly, which no hook sees; call the module itself, or name the method "
            "'torch.nn.modules.linear.Linear.forward' with type 'MethodOutputs'",
        ),
        ("inference", " in train mode; it does in eval mode"),
        ("dead", ", neither in train nor in eval mode, with these inputs"),
        ("dead.0", ", neither in train nor in eval mode, with these inputs"),
        ("named.b", ", neither in train nor in eval mode, with these inputs"),
    ],
)
def test_modules(parts: Parts, path: str, reason: str) -> None:
    assert why(parts.train(), "ModuleOutputs", path) == reason


def test_a_module_that_only_training_calls(parts: Parts) -> None:
    assert why(parts.eval(), "ModuleInputs", "auxiliary") == " in eval mode; it does in train mode"


def test_the_reason_is_in_the_report() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.extra = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return self.extra(x) if self.training else x

    spec: dict[str, Any] = {"pairs": [{"student": "extra", "teacher": "extra", "loss": {"type": "L2Loss"}}]}
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(Auxiliary(), Auxiliary(), spec, example_inputs=batch())
    assert caught.value.problems == (
        "teacher_recorders.extra.source: 'extra' exists, but the teacher does not call it in its forward in eval mode; "
        "it does in train mode",
    )


def test_a_model_that_does_not_run_in_the_other_mode() -> None:
    class OneMode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise NotImplementedError("training only")
            return self.fc(x)  # type: ignore[no-any-return]

    assert why(OneMode(), "ModuleOutputs", "unused") == " (in train mode, with these inputs)"


def test_a_shared_module_has_all_its_paths() -> None:
    class Shared(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.first = nn.Sequential(nn.Linear(4, 4))
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x)  # type: ignore[no-any-return]

    student, teacher = Shared(0), Shared(1)
    spec = {"pairs": [{"student": "second.0", "teacher": "second", "loss": {"type": "L1Loss"}}]}
    out = fxkd.prepare(student, teacher, spec, example_inputs=batch())(batch(3))
    assert_same(out.loss, (student(batch(3)) - teacher(batch(3))).abs().mean())


def quick(x: Tensor) -> Tensor:
    return x.abs()


class Asks(nn.Module):
    """Calls a function on values alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        return h if isinstance(h, FakeTensor) else quick(h)


def test_a_function_that_is_called_on_values_alone() -> None:
    with pytest.raises(CaptureError, match=r"quick' is called 1 times in a run on values, and 0 times when the model"):
        fxkd.record(Asks(), {"x": {"type": "FunctionOutputs", "source": f"{__name__}.quick"}}, torch.ones(2, 4))
