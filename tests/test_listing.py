"""The table of points: what is in it, that its paths and indices are those of recorders, and what it leaves alone."""

import random
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fxkd
from fxkd.eager import FunctionOutputsRecorder, MethodOutputsRecorder, ModuleOutputsRecorder
from fxkd.errors import CaptureError, PointError
from fxkd.listing import Point, PointTable
from fxkd.points import find_function, find_method, find_module
from fxkd.watch import _shape
from tests.support.cases import CASES, REAL_CASES
from tests.support.models.cnn import Cnn
from tests.support.oracle import seed_everything

ALL = CASES | REAL_CASES
RECORDERS = {
    "ModuleOutputs": ModuleOutputsRecorder,
    "FunctionOutputs": FunctionOutputsRecorder,
    "MethodOutputs": MethodOutputsRecorder,
}


def rows(table: PointTable, kind: str) -> list[tuple[str, int]]:
    return [(row.path, row.index) for row in table if row.kind == kind]


@pytest.mark.parametrize("name", ALL)
def test_every_row_is_what_a_recorder_gets(name: str) -> None:
    case = ALL[name]
    model, (args, kwargs) = case.build_student(), case.inputs(2)
    table = fxkd.points(model, fxkd.Inputs(args, kwargs))
    recorders: dict[tuple[str, str], Any] = {
        (kind, path): RECORDERS[kind](path) for kind, path in dict.fromkeys((row.kind, row.path) for row in table)
    }
    with ExitStack() as stack:
        for recorder in recorders.values():
            recorder.initialize(model)
            stack.enter_context(recorder)
        model(*args, **kwargs)
    for (kind, path), recorder in recorders.items():
        calls = [row for row in table if (row.kind, row.path) == (kind, path)]
        assert [row.index for row in calls] == list(range(len(calls)))
        assert [row.shape for row in calls] == [_shape(value) for value in recorder.data_buffer], path


@pytest.mark.parametrize("name", ALL)
def test_every_path_is_found(name: str) -> None:
    case = ALL[name]
    model, (args, kwargs) = case.build_student(), case.inputs(2)
    for row in fxkd.points(model, fxkd.Inputs(args, kwargs)):
        if row.kind == "ModuleOutputs":
            assert sum(p.numel() for p in find_module(model, row.path).parameters()) == row.parameters
        else:
            assert {"FunctionOutputs": find_function, "MethodOutputs": find_method}[row.kind](row.path)
            assert row.parameters is None


def test_cnn() -> None:
    table = fxkd.points(Cnn(), torch.zeros(2, 3, 8, 8))
    assert rows(table, "ModuleOutputs")[:3] == [("", 0), ("entry", 0), ("stem", 0)]
    assert table.find("layers.0.relu").rows == tuple(
        Point(
            kind="ModuleOutputs",
            path="layers.0.relu",
            index=index,
            shape=(2, 8, 4, 4),
            dtype=torch.float32,
            channels=8,
            stride=2.0,
            parameters=0,
        )
        for index in (0, 1)
    )
    assert rows(table, "FunctionOutputs") == [
        ("tests.support.models.cnn.torch.rand", 0),
        ("tests.support.models.cnn.torch.randperm", 0),
        ("tests.support.models.cnn.torch.tanh", 0),
        ("tests.support.models.cnn.torch.tanh", 1),
        ("tests.support.models.cnn.squash", 0),
        ("tests.support.models.cnn.squash", 1),
    ]
    assert rows(table, "MethodOutputs") == [("tests.support.models.cnn.Mixer.mix", 0)]
    assert table[0].shape == (2, 5)
    assert (table[0].channels, table[0].stride, table[0].parameters) == (5, None, 1845)


def test_timm_attention_is_found_where_it_is_looked_up() -> None:
    case = REAL_CASES["timm_vit_tiny"]
    args, kwargs = case.inputs(2)
    table = fxkd.points(case.build_student(), fxkd.Inputs(args, kwargs))
    found = table.find("scaled_dot_product_attention")
    assert rows(found, "FunctionOutputs")[0] == ("timm.layers.attention.F.scaled_dot_product_attention", 0)
    assert "timm.models.vision_transformer.VisionTransformer.forward_features" in [row.path for row in table]
    assert table.find("blocks.0")[0].channels == 24


# What can be named


def double(x: Tensor) -> Tensor:
    return 2 * x


@torch.no_grad()
def frozen(x: Tensor) -> Tensor:
    return x.detach()


def inner(x: Tensor) -> Tensor:
    return x + 1


@contextmanager
def nothing() -> Any:
    yield


class Base:
    def scale(self, x: Tensor) -> Tensor:
        return 3 * x


class Helper(Base):
    class Nested:
        @staticmethod
        def fixed(x: Tensor) -> Tensor:
            return x

    def scale(self, x: Tensor) -> Tensor:
        return super().scale(x)

    @classmethod
    def make(cls, x: Tensor) -> Tensor:
        return x

    @torch.no_grad()
    def quiet(self, x: Tensor) -> Tensor:
        return x

    @property
    def tensor(self) -> Tensor:
        return torch.ones(1)

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(index + 1)

    def count(self) -> int:
        return 1

    def __call__(self, *args: Tensor) -> list[Tensor]:
        return [*args]


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.same = self.fc
        self.unused = nn.ModuleList([nn.ReLU()])
        self.register_buffer("steps", torch.zeros(()))
        self.seen: list[float] = []

    def features(self, x: Tensor) -> Tensor:
        return F.softmax(self.fc(x), dim=-1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        helper = Helper()
        self.steps += 1
        self.last = x
        self.seen.append(random.random())
        with nothing():
            x = helper.scale(frozen(double(x))) + helper.tensor + helper[0] * helper.count()
        x = helper.quiet(helper.make(Helper.Nested.fixed(x)))
        x = checkpoint(inner, x, use_reentrant=False)
        return {"all": helper(x, torch.cat([self.features(x), x])), "size": x.shape[0], "mask": x > 0, "none": None}


def test_what_can_be_named() -> None:
    table = fxkd.points(Everything(), torch.ones(2, 4))
    here = "tests.test_listing."
    assert rows(table, "ModuleOutputs") == [("", 0), ("fc", 0), ("same", 0)]
    assert {path.removeprefix(here) for path, _ in rows(table, "FunctionOutputs")} == {
        "frozen",
        "double",
        "checkpoint",
        "F.softmax",
        "torch.cat",
        "torch.ones",
    }
    assert {path.removeprefix(here) for path, _ in rows(table, "MethodOutputs")} == {
        "Base.scale",
        "Helper.scale",
        "Helper.make",
        "Helper.quiet",
        "Helper.Nested.fixed",
        "Helper.__call__",
        "Everything.features",
    }
    assert table.never_called == ("unused", "unused.0")


def test_nested_outputs() -> None:
    table = fxkd.points(Everything(), torch.ones(2, 4))
    assert table[0].shape == {"all": ((2, 4), (4, 4)), "size": None, "mask": (2, 4), "none": None}
    assert (table[0].dtype, table[0].channels, table[0].stride) == (None, None, None)
    assert table.find("__call__")[0].dtype is torch.float32


def test_what_is_made_inside_a_function_has_no_path() -> None:
    class Local(nn.Module):
        def helper(self, x: Tensor) -> Tensor:
            return x

        def forward(self, x: Tensor) -> Tensor:
            return self.helper(x)

    assert [row.kind for row in fxkd.points(Local(), torch.ones(1))] == ["ModuleOutputs"]


# The table


def test_table() -> None:
    table = fxkd.points(Everything(), torch.ones(2, 4))
    assert len(table) == len(list(table))
    assert table[-1] in table
    assert isinstance(table[1:3], PointTable)
    assert [row.path for row in table[1:3]] == ["fc", "same"]
    assert str(table[:2]).splitlines() == [
        "kind           path  index  shape                                                         dtype    channels  "
        "stride  parameters",
        "ModuleOutputs  ''        0  {'all': ((2, 4), (4, 4)), 'size': None, 'mask': (2, 4), 'none': None}"[:85]
        + "...  "
        "-               -       -          20",
        "ModuleOutputs  fc        0  (2, 4)                                                        float32         4  "
        "     -          20",
        "2 modules are never called: 'unused', 'unused.0'",
    ]
    assert str(table.find("fc")).count("\n") == 1
    assert repr(table) == str(table)
    assert str(PointTable([], ["a"])).endswith("1 module is never called: 'a'")
    assert str(PointTable([], map(str, range(10)))).endswith("'7' and 2 more")


# The model is left alone


class Decides(nn.Module):
    """Goes by a value, so it does not run on tensors without values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) + torch.rand(1)
        return double(x) if float(x.sum()) < 1e6 else x


@pytest.mark.parametrize("model", [Everything(), Decides(), Cnn()])
@pytest.mark.parametrize("grad", [True, False])
def test_nothing_changes(model: nn.Module, grad: bool) -> None:
    model.train()
    x = torch.randn(3, 3, 8, 8) if isinstance(model, Cnn) else torch.randn(3, 4)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    objects = [(module, dict(vars(module))) for module in model.modules()]
    method, call, softmax, given = Helper.scale, nn.Module.__call__, F.softmax, x.clone()
    seed_everything(3)
    drawn = random.random(), torch.rand(2)
    seed_everything(3)
    with torch.set_grad_enabled(grad):
        fxkd.points(model, x)
        assert torch.is_grad_enabled() is grad
    assert random.random() == drawn[0]
    assert torch.equal(torch.rand(2), drawn[1])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for module, before in objects:
        assert vars(module).keys() == before.keys()
        assert all(vars(module)[name] is value for name, value in before.items())
    assert getattr(model, "seen", []) == []
    assert (method, call, softmax) == (Helper.scale, nn.Module.__call__, F.softmax)
    assert torch.equal(x, given)


def test_without_values_where_possible() -> None:
    seen: list[str] = []
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_forward_hook(lambda module, args, output: seen.append(type(output).__name__))
    fxkd.points(model, torch.ones(1, 4))
    assert set(seen) == {"FakeTensor"}


def test_with_values_where_necessary() -> None:
    table = fxkd.points(Decides(), torch.randn(3, 4))
    assert [row.path for row in table] == [
        "",
        "norm",
        "tests.test_listing.torch.rand",
        "tests.test_listing.double",
    ]


def test_errors() -> None:
    with pytest.raises(PointError, match=r"points are those of an nn.Module, not of a str."):
        fxkd.points("resnet18", torch.ones(1))  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="example_inputs is a list"):
        fxkd.points(nn.ReLU(), [torch.ones(1)])
    with pytest.raises(CaptureError, match=r"does not run on example_inputs: RuntimeError at .*mat1 and mat2"):
        fxkd.points(nn.Linear(3, 2), torch.ones(1, 4))
