"""What a forward reads from its modules, changed after the capture: never ignored."""

import copy
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd import Distiller, graph_backend
from fxkd.capture.held import form_of
from fxkd.errors import CaptureError
from tests.support.oracle import assert_same


class Settings:
    def __init__(self) -> None:
        self.power, self.names = 1.0, {"bias": 0.5}


class Block(nn.Module):
    scale = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.alpha, self.settings, self.steps = nn.Linear(4, 4), 0.5, Settings(), [1.0, 2.0]
        self.extra: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) * self.alpha * self.scale * self.settings.power + self.settings.names["bias"]
        x = x if self.extra is None else self.extra(x)
        return self.activate(x) * self.steps[1]

    def activate(self, x: Tensor) -> Tensor:
        return x.relu()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Block(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(x))


def prepared() -> Distiller:
    model = Model()
    spec = {"pairs": [{"student": "block.linear", "teacher": "block.linear", "loss": {"type": "L2Loss"}}]}
    return fxkd.prepare(model, copy.deepcopy(model), spec, example_inputs=torch.randn(2, 4))


class Other(Block):
    def activate(self, x: Tensor) -> Tensor:
        return x.tanh()


def replace_block(model: Model) -> None:
    model.block = Other()


def hook(model: Model) -> None:
    model.block.register_forward_hook(lambda module, args, output: output + 1)


CHANGES: dict[str, Callable[[Model], object]] = {
    "a number": lambda model: setattr(model.block, "alpha", 3.0),
    "a number of the class": lambda model: setattr(model.block, "scale", 5.0),
    "a number in an object": lambda model: setattr(model.block.settings, "power", 3.0),
    "a number in a dict in an object": lambda model: model.block.settings.names.update(bias=3.0),
    "an item of a list": lambda model: model.block.steps.__setitem__(1, 7.0),
    "a module that was none": lambda model: setattr(model.block, "extra", nn.Linear(4, 4)),
    "an opened module": replace_block,
    "a leaf": lambda model: setattr(model.block, "linear", nn.Sequential(nn.Linear(4, 4), nn.Tanh())),
    "a hook on an opened module": hook,
    "a method of one module": lambda model: setattr(model.block, "activate", torch.sigmoid),
    "the forward of one module": lambda model: setattr(model.block, "forward", lambda x: model.block.linear(x) - 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_captured_anew(change: Callable[[Model], object]) -> None:
    distiller, batch = prepared(), torch.randn(3, 4)
    before = distiller(batch).output
    change(distiller.student)
    expected = distiller.student(batch)
    assert not torch.equal(expected, before)
    assert_same(distiller(batch).output, expected)


def test_a_change_back_needs_no_further_capture() -> None:
    distiller, batch = prepared(), torch.randn(3, 4)
    for alpha in (3.0, 0.5, 3.0):
        distiller.student.block.alpha = alpha
        assert_same(distiller(batch).output, distiller.student(batch))
    assert len(distiller.programs) == 2


def test_a_change_that_nobody_reads_is_none_of_the_graph() -> None:
    distiller = prepared()
    distiller.student.block.unread = 1
    distiller(torch.randn(3, 4))
    assert len(distiller.programs) == 1
    assert len(distiller.programs[0].situations) == 1


def test_a_change_is_seen_in_a_compiled_region() -> None:
    distiller, batch = prepared(), torch.randn(3, 4)
    compiled = torch.compile(distiller, backend="aot_eager")
    compiled(batch)
    distiller.student.block.alpha = 3.0
    distiller(batch)  # captured outside, as the error of the compiled region would say
    assert_same(compiled(batch).output, distiller.student(batch))


def test_a_number_that_always_changes_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_backend, "MOST_CAPTURES", 6)
    distiller, batch = prepared(), torch.randn(3, 4)

    def always_another() -> None:
        for step in range(100):
            distiller.student.block.alpha = float(step)
            distiller(batch)

    with pytest.raises(CaptureError, match=r"'Block.alpha' changed"):
        always_another()


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), ([1], [2]), ({"a": 1}, {"b": 1}), (torch.zeros(2), None), (len, print)]
)
def test_forms_differ(one: object, other: object) -> None:
    assert form_of(one) == form_of(copy.copy(one))
    assert form_of(one) != form_of(other)


def test_of_a_tensor_the_values_are_free() -> None:
    assert form_of(torch.zeros(2)) == form_of(torch.ones(2))
    assert form_of(torch.zeros(2)) != form_of(torch.zeros(3))
    assert form_of(torch.zeros(2)) != form_of(torch.zeros(2, dtype=torch.float64))


class Holder(nn.Module):
    """Computes with whatever it holds, as the test says."""

    def __init__(self, value: Any, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.value, self.use = nn.Linear(4, 4), value, use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.value, self.linear(x))


class Slotted:
    __slots__ = ("k",)

    def __init__(self) -> None:
        self.k = 1.0


class Stateful:
    k = 1.0

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.k


class Table(dict[str, float]):
    k = 1.0


def nested() -> Settings:
    outer = Settings()
    outer.inner = Settings()
    outer.inner.inner = Settings()
    return outer


IN_PLACE: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor], Callable[[Any], object]]] = {
    "a tensor in a list": (lambda: [torch.ones(1)], lambda v, x: x * v[0], lambda v: v.insert(0, torch.zeros(1))),
    "a tensor on an object": (Settings, lambda v, x: x * v.power, lambda v: setattr(v, "power", torch.tensor(3.0))),
    "an array": (lambda: np.array([2.0]), lambda v, x: x * float(v[0]), lambda v: v.fill(7.0)),
    "a deque": (lambda: deque([2.0]), lambda v, x: x * v[0], lambda v: v.appendleft(7.0)),
    "a long list": (lambda: [2.0] * 500, lambda v, x: x * v[450], lambda v: v.__setitem__(450, 7.0)),
    "slots": (Slotted, lambda v, x: x * v.k, lambda v: setattr(v, "k", 7.0)),
    "a dict of its own class": (Table, lambda v, x: x * v.k, lambda v: setattr(v, "k", 7.0)),
    "far inside": (nested, lambda v, x: x * v.inner.inner.power, lambda v: setattr(v.inner.inner, "power", 7.0)),
    "behind a method": (lambda: Stateful().scaled, lambda v, x: v(x), lambda v: setattr(v.__self__, "k", 7.0)),
}  # fmt: skip


@pytest.mark.parametrize(("make", "use", "change"), IN_PLACE.values(), ids=list(IN_PLACE))
def test_what_a_module_holds_changes_inside(make: Any, use: Any, change: Any) -> None:
    student, teacher, batch = Holder(make(), use), Holder(make(), use), torch.randn(3, 4)
    spec = {"pairs": [{"student": "linear", "teacher": "linear", "loss": {"type": "L2Loss"}}]}
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=torch.randn(2, 4))
    before = student(batch)
    change(student.value)
    assert not torch.equal(student(batch), before)
    assert_same(student(batch), distiller(batch).output)
    assert len(distiller.programs) == 2


def test_another_partial_is_another_function() -> None:
    leaky = nn.functional.leaky_relu
    student = Holder(partial(leaky, negative_slope=0.1), lambda v, x: v(x))
    spec = {"pairs": [{"student": "linear", "teacher": "linear", "loss": {"type": "L2Loss"}}]}
    distiller = fxkd.prepare(student, copy.deepcopy(student), spec, example_inputs=torch.randn(2, 4))
    student.value = partial(leaky, negative_slope=5.0)
    batch = torch.randn(3, 4)
    assert_same(student(batch), distiller(batch).output)


class Asked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, by: Any) -> Tensor:
        return self.linear(x) * float(by[0] if isinstance(by, np.ndarray) else by.power)


def change_settings(value: Any) -> None:
    value.power = 9.0


@pytest.mark.parametrize(
    ("given", "change"), [(np.array([2.0]), lambda value: value.fill(9.0)), (Settings(), change_settings)]
)
def test_an_argument_that_changes_in_place(given: Any, change: Callable[[Any], object]) -> None:
    spec = {"pairs": [{"student": "linear", "teacher": "linear", "loss": {"type": "L2Loss"}}]}
    distiller, batch = fxkd.prepare(Asked(), Asked(), spec), torch.randn(3, 4)
    assert_same(distiller.student(batch, given), distiller(batch, given).output)
    change(given)
    assert_same(distiller.student(batch, given), distiller(batch, given).output)


def test_equal_arguments_need_one_capture() -> None:
    spec = {"pairs": [{"student": "linear", "teacher": "linear", "loss": {"type": "L2Loss"}}]}
    distiller, batch = fxkd.prepare(Asked(), Asked(), spec), torch.randn(3, 4)
    for _ in range(3):
        distiller(batch, Settings())
    assert len(distiller.programs) == 1
