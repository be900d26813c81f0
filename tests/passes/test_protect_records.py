"""A clone under exactly those records that a later in-place operation would change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, fx, nn
from torch.nn import functional

from fxkd.passes import InsertDeliveries, InsertLosses, InsertRecords, ProtectRecords, run
from fxkd.passes.insert_records import record, records_of
from fxkd.passes.protect_records import clone
from tests.passes.joint import batch, joined, outputs, shape_of, structure
from tests.passes.programs import RETURNED, STEPS, Program
from tests.support.oracle import assert_same

fx.wrap("record")
fx.wrap("clone")

POINT = outputs("fc")


class Model(nn.Module):
    """Record ``fc``, then do something."""

    def __init__(self, after: Callable[["Model", Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.LayerNorm(4), nn.ReLU(inplace=True))
        self.inside = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self, self.fc(x))


def set_rows(model: Model, h: Tensor) -> Tensor:
    h[1:] = 0
    return h


def set_view(model: Model, h: Tensor) -> Tensor:
    h.reshape(-1)[0] = 1
    return h.sum()


def set_late(model: Model, h: Tensor) -> Tensor:
    part = h[:, :2]
    y = h * 2
    part.zero_()
    return y


def with_out(model: Model, h: Tensor) -> Tensor:
    with torch.no_grad():
        torch.add(h, 1, out=h)
    return h


def augmented(model: Model, h: Tensor) -> Tensor:
    h += 1
    return h


CHANGED: dict[str, Callable[[Model, Tensor], Any]] = {
    "relu_": lambda model, h: h.relu_(),
    "functional": lambda model, h: functional.relu(h, inplace=True),
    "add_": lambda model, h: h.add_(1),
    "augmented": augmented,
    "setitem": set_rows,
    "setitem_of_a_view": set_view,
    "view": set_late,
    "module": lambda model, h: model.relu(h),
    "module_later": lambda model, h: (h * 2, model.relu(h))[0],
    "leaf_that_begins_in_place": lambda model, h: model.inside(h),
    "out": with_out,
    "detached": lambda model, h: (h.detach().mul_(2), h)[1],
    "data": lambda model, h: (h.data.mul_(2), h)[1],
    "chain_of_views": lambda model, h: (h.view(-1)[2:].unsqueeze(0).t().add_(1), h)[1],
}

KEPT: dict[str, Callable[[Model, Tensor], Any]] = {
    "nothing": lambda model, h: h,
    "relu": lambda model, h: h.relu(),
    "in_place_on_another": lambda model, h: (h * 2).relu_(),
    "block": lambda model, h: model.block(h),
    "clone_first": lambda model, h: h.clone().relu_(),
    "copied_view": lambda model, h: h.reshape(2, -1).contiguous().clone().add_(1),
    "setitem_of_another": lambda model, h: set_rows(model, h + 1),
    "read_views": lambda model, h: h[1:].sum() + h.t().mean(),
}


def recorded(after: Callable[[Model, Tensor], Any]) -> fx.GraphModule:
    module = joined(Model(after), points=[POINT])
    return run(module, [InsertRecords({"feat": POINT}, "student"), InsertLosses({}, None, True, {"student": ["feat"]})])


@pytest.mark.parametrize("name", CHANGED)
def test_a_record_that_is_written_to_is_cloned(name: str) -> None:
    module = recorded(CHANGED[name])
    with torch.no_grad():
        exact = module.student.fc(batch(2))
        assert not torch.equal(module(batch(2))["records"]["student"]["feat"][0], exact), "the case shows nothing"
        module = run(module, [ProtectRecords()])
        assert shape_of(module.graph).count("clone") == 1
        assert torch.equal(module(batch(2))["records"]["student"]["feat"][0], exact)


@pytest.mark.parametrize("name", KEPT)
def test_any_other_record_is_not(name: str) -> None:
    module = recorded(KEPT[name])
    clones = shape_of(module.graph).count("clone")
    before = str(module.graph)
    _, modified = ProtectRecords()(module)
    assert not modified
    assert str(module.graph) == before
    assert shape_of(module.graph).count("clone") == clones


class Before(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student = Model(CHANGED["relu_"])

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = self.student.fc(x)
        first = record(h, "student.feat", 0)
        return {
            "loss": None, "student_loss": None, "losses": {}, "output": h.relu_(),
            "records": {"student": {"feat": [first]}},
        }  # fmt: skip


class After(Before):
    def forward(self, x: Tensor) -> dict[str, Any]:
        h = self.student.fc(x)
        first = record(clone(h), "student.feat", 0)
        return {
            "loss": None, "student_loss": None, "losses": {}, "output": h.relu_(),
            "records": {"student": {"feat": [first]}},
        }  # fmt: skip


def test_protect_records() -> None:
    module = recorded(CHANGED["relu_"])
    assert structure(module.graph) == structure(fx.symbolic_trace(Before()).graph)
    assert structure(run(module, [ProtectRecords()]).graph) == structure(fx.symbolic_trace(After()).graph)


def test_gradients_flow_through_the_clone() -> None:
    module = run(recorded(CHANGED["relu_"]), [ProtectRecords()])
    module(batch(2))["records"]["student"]["feat"][0].sum().backward()
    assert_same(module.student.fc.bias.grad, torch.full((4,), 2.0))


def test_twice_is_once() -> None:
    module = run(recorded(CHANGED["relu_"]), [ProtectRecords()])
    _, modified = ProtectRecords()(module)
    assert not modified


def test_two_records_of_one_value_are_both_safe() -> None:
    points = {"a": POINT, "b": POINT}
    module = joined(Model(CHANGED["add_"]), points=[POINT])
    steps = [InsertRecords(points, "student"), InsertLosses({}, None, True, {"student": ["a", "b"]}), ProtectRecords()]
    found = run(module, steps)(batch(2))["records"]["student"]
    assert torch.equal(found["a"][0], module.student.fc(batch(2)))
    assert torch.equal(found["b"][0], module.student.fc(batch(2)))


def test_a_record_between_two_writes_holds_what_was_there() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            h = x * 2
            h.add_(1)
            self.tap(h)
            h.mul_(0)
            return h

    module = joined(Between(), points=[outputs("tap")])
    steps = [InsertRecords({"tap": outputs("tap")}, "student"), InsertLosses({}, None, True, {"student": ["tap"]})]
    found = run(module, [*steps, ProtectRecords()])(batch(2))["records"]["student"]["tap"][0]
    assert torch.equal(found, batch(2) * 2 + 1)


class Overwrites(nn.Module):
    """Writes to its point's value after it is read once."""

    def __init__(self, seed: int, factor: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.factor = nn.Linear(4, 4), factor

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        y = h * self.factor
        h.mul_(0)
        return y


class Reads(Overwrites):
    """Only reads its point's value."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.factor


@pytest.mark.parametrize("taker", [Overwrites, Reads])
def test_a_delivery_gives_the_value_at_its_point(taker: type[Overwrites]) -> None:
    student, teacher = taker(0, 2), Overwrites(1, 3)
    module = joined(student, teacher, points=[POINT], whole=[POINT])
    module = run(module, [InsertDeliveries({"fc": POINT})])
    wrong = module(batch(3))["output"]
    assert not wrong.any(), "the case shows nothing"
    module = run(module, [ProtectRecords()])
    assert shape_of(module.graph).count("clone") == 1
    assert_same(teacher.fc(batch(3)).detach() * 2, module(batch(3))["output"])


def test_a_delivery_that_nobody_writes_to_is_not_cloned() -> None:
    module = joined(Reads(0, 2), Reads(1, 3), points=[POINT], whole=[POINT])
    module = run(module, [InsertDeliveries({"fc": POINT}), ProtectRecords()])
    assert "clone" not in shape_of(module.graph)


@settings(max_examples=15)
@given(steps=STEPS, returned=RETURNED)
def test_records_of_random_programs_hold_the_value_at_their_point(
    steps: list[tuple[str, int, int]], returned: list[int]
) -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    model = Program([*steps, ("tap", 0, 0)], returned)
    taps = [outputs(f"taps.{index}") for index in range(len(model.taps))]
    names = {f"tap_{index}": point for index, point in enumerate(taps)}
    with torch.no_grad():
        module = joined(model, inputs=(x,), points=taps)
        insert = [InsertRecords(names, "student"), InsertLosses({}, None, True, {"student": list(names)})]
        module = run(module, [*insert, ProtectRecords()])

        values: list[Tensor] = []
        alive: list[tuple[Tensor, int]] = []

        def keep(_: nn.Module, args: Any, output: Tensor) -> None:
            values.append(output.clone())
            alive.append((output, output._version))

        handles = [tap.register_forward_hook(keep) for tap in model.taps]
        state = model.count.clone()
        expected = [value.clone() for value in model(x.clone())]
        after = model.count.clone()
        model.count.copy_(state)
        for handle in handles:
            handle.remove()

        result = module(x.clone())
        assert_same(values, [result["records"]["student"][name][0] for name in names])
        assert_same(expected, result["output"])
        assert_same(after, model.count)
    written = [tensor._version != version for tensor, version in alive]
    cloned = [records_of(module.graph, "student", name)[0].args[0].target is clone for name in names]
    assert cloned == written  # exactly where a later write was
