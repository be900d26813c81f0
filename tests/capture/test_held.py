"""What a forward reads from its modules, changed after the capture: never ignored."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd import Distiller
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


def test_a_number_that_always_changes_is_refused_by_name() -> None:
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
    assert form_of(torch.zeros(2)) == form_of(torch.ones(3))
    assert form_of(torch.zeros(2)) != form_of(torch.zeros(2, dtype=torch.float64))
