"""Named functions and methods: one node that runs at every step, or opened where points lie inside."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fxkd import record
from fxkd.capture import Inputs, PointName, capture
from fxkd.errors import CaptureError, GuardError
from tests.capture.replay import assert_replays, call_graph, captured, graph_of, targets
from tests.support.oracle import assert_same, seed_everything


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


class Draw:
    """Draws in every form that a program may use."""

    def integer(self) -> int:
        return random.randint(1, 10**6)

    def number(self) -> float:
        return random.random()

    def listed(self, count: int) -> list[float]:
        return [random.gauss(0, 1) for _ in range(count)]

    def pair(self, x: Tensor) -> tuple[Tensor, float]:
        return x[torch.randperm(x.shape[0])], float(np.random.beta(1, 1))

    def named(self, x: Tensor) -> dict[str, Any]:
        return {"mixed": x.flip(0), "share": random.random(), "note": None}

    def truth(self) -> bool:
        return random.random() < 0.5

    def array(self, size: int) -> Any:
        return np.random.randn(size)


def scale(x: Tensor, by: float = 2.0) -> Tensor:
    return x * by


def first_rows(x: Tensor) -> Tensor:
    return x[:1]


def worked(x: Tensor) -> Tensor:
    return x.add_(1)


def same(x: Tensor) -> Tensor:
    return x


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sort(x.detach().numpy(), axis=1)) * 2


def chosen(x: Tensor) -> Tensor:
    return x * 2 if bool((x > 0).any()) else x


def apply_layer(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x) * 2


class Model(nn.Module):
    """Uses a program's function between two layers."""

    def __init__(self, use: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4))
        self.draw = Draw()
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, self.conv(x))


def listed(model: Model, h: Tensor) -> Tensor:
    values = model.draw.listed(3)
    return h * values[0] + sum(values) * values[-1]


def paired(model: Model, h: Tensor) -> Tensor:
    mixed, share = model.draw.pair(h)
    return share * h + (1 - share) * mixed


def named(model: Model, h: Tensor) -> Tensor:
    found = model.draw.named(h)
    return found["share"] * h + (1 - found["share"]) * found["mixed"]


def powers(model: Model, h: Tensor) -> Tensor:
    number = model.draw.number()
    return h * number**2 - h / (1 + number) + torch.full((4,), number * 3) + h.clamp(min=-number)


DRAWS = {
    "integer": (lambda model, h: h + model.draw.integer(), "integer"),
    "number": (lambda model, h: h + model.draw.number(), "number"),
    "arithmetic": (powers, "number"),
    "twice": (lambda model, h: h * model.draw.number() + model.draw.number(), "number"),
    "list": (listed, "listed"),
    "tuple": (paired, "pair"),
    "dict": (named, "named"),
}


def method(name: str) -> PointName:
    return PointName("MethodOutputs", f"{__name__}.Draw.{name}")


def function(name: str) -> PointName:
    return PointName("FunctionOutputs", f"{__name__}.{name}")


@pytest.mark.parametrize("name", DRAWS)
def test_a_named_draw_is_made_at_every_step(name: str) -> None:
    use, point = DRAWS[name]
    model = Model(use)
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=[method(point)])
    seed_everything(1)
    first, second = graph_module(batch(5)), graph_module(batch(5))
    assert not torch.allclose(first, second)
    seed_everything(1)
    assert_same(first, model(batch(5)))
    assert_same(second, model(batch(5)))


def test_a_drawn_array_is_not_frozen() -> None:
    model = Model(lambda model, h: h + torch.from_numpy(model.draw.array(4)))
    with pytest.raises(
        CaptureError, match=r"used at .*test_discover\.py:\d+ .*name the function that makes it as a point"
    ):
        captured(model, batch(2), points=[method("array")])


def test_a_drawn_truth_is_a_guard() -> None:
    model = Model(lambda model, h: h * 2 if model.draw.truth() else h - 1)
    graph_module = graph_of(model, batch(2), points=[method("truth")])
    refused = 0
    for seed in range(12):
        seed_everything(seed)
        expected = model(batch(5))
        seed_everything(seed)
        try:
            assert_same(expected, graph_module(batch(5)))
        except GuardError:
            refused += 1
    assert 0 < refused < 12


def test_a_decision_on_a_drawn_number_is_a_guard() -> None:
    model = Model(lambda model, h: h * 2 if model.draw.number() < 0.5 else h - 1)
    graph_module = graph_of(model, batch(2), points=[method("number")])
    outcomes = set()
    for seed in range(12):
        seed_everything(seed)
        expected = model(batch(5))
        seed_everything(seed)
        try:
            assert_same(expected, graph_module(batch(5)))
            outcomes.add("right")
        except GuardError:
            outcomes.add("refused")
    assert outcomes == {"right", "refused"}


def test_a_drawn_float_given_to_math_is_not_frozen() -> None:
    import math

    model = Model(lambda model, h: h * math.sqrt(model.draw.number()))
    with pytest.raises(CaptureError, match=r"Python code works on what is given by .*Draw\.number"):
        graph_of(model, batch(2), points=[method("number")])


@pytest.mark.parametrize("name", ["scale", "first_rows", "worked", "same", "through_numpy", "chosen"])
def test_a_named_function_is_one_node(name: str) -> None:
    used = {"scale": lambda model, h: scale(h, by=3.0) + scale(h * 2)}.get(
        name, lambda model, h: globals()[name](h * 1) + h
    )
    graph_module = assert_replays(Model(used), (batch(2),), (batch(5),), points=[function(name)])
    assert targets(graph_module).count(name) == (2 if name == "scale" else 1)


def test_what_cannot_be_captured_can_be_named() -> None:
    for name in ("through_numpy", "chosen"):
        model = Model(lambda model, h, name=name: globals()[name](h))
        with pytest.raises(CaptureError, match=r"name the function or method that does it as a point"):
            captured(model, batch(2))
        captured(model, batch(2), points=[function(name)])


def test_a_function_that_works_in_place_or_gives_a_view_is_noted() -> None:
    found = captured(Model(lambda model, h: worked(h * 1)), batch(2), points=[function("worked")])
    (node,) = found.calls(function("worked"))
    assert node.meta["mutates"] == node.args[0].meta["storages"]  # type: ignore[union-attr]
    found = captured(Model(lambda model, h: first_rows(h * 1)), batch(2), points=[function("first_rows")])
    (node,) = found.calls(function("first_rows"))
    assert node.args[0].meta["storages"] <= node.meta["storages"]  # type: ignore[union-attr]


def test_inputs_of_functions_and_methods() -> None:
    point = PointName("FunctionInputs", f"{__name__}.scale")
    pairs = PointName("MethodInputs", f"{__name__}.Draw.pair")
    model = Model(lambda model, h: scale(model.draw.pair(h)[0], by=3.0))
    found = captured(model, batch(2), points=[point, pairs])
    (given,), (of_method,) = found.calls(point), found.calls(pairs)
    assert len(given.meta["val"]) == 2
    assert given.meta["val"][1] == 3.0
    assert len(of_method.meta["val"]) == 1  # without self


def test_a_function_that_calls_a_point_is_opened() -> None:
    points = [function("apply_layer"), PointName("ModuleOutputs", "inner.0")]
    model = Model(lambda model, h: apply_layer(model.inner, h))
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=points)
    assert "apply_layer" not in targets(graph_module)
    assert "model.inner.0" in targets(graph_module)
    found = captured(model, batch(2), points=points)
    assert [len(found.calls(point)) for point in points] == [1, 1]


def test_a_replaced_function_cannot_hold_a_point() -> None:
    model = Model(lambda model, h: apply_layer(model.inner, h))
    points = [function("apply_layer"), PointName("ModuleOutputs", "inner.0")]
    with pytest.raises(CaptureError, match="apply_layer' gives is replaced, so no point can lie inside it"):
        capture(model, Inputs((batch(2),)), points=points, whole=points[:1])


class Leaf(nn.Module):
    """Calls the program's function inside."""

    def forward(self, x: Tensor) -> Tensor:
        return scale(x) + 1


def test_a_function_called_inside_a_module_opens_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Leaf()), nn.Sequential(nn.ReLU()))
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=[function("scale")])
    assert targets(graph_module) == ["input", "model.0", "scale", "add", "model.2", "output"]


def test_a_function_of_torch_is_named() -> None:
    point = PointName("FunctionOutputs", "torch.nn.functional.relu")
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=[point])
    assert targets(graph_module) == ["input", "model.0", "relu", "output"]


def test_a_method_of_a_module_is_named() -> None:
    point = PointName("MethodOutputs", f"{__name__}.Leaf.forward")
    model = nn.Sequential(nn.Linear(4, 4), Leaf())
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=[point])
    assert targets(graph_module).count("forward") == 1


def test_a_static_and_a_class_method() -> None:
    model = Model(lambda model, h: Tools.double(h) + Tools.build(h))
    points = [PointName("MethodOutputs", f"{__name__}.Tools.{name}") for name in ("double", "build")]
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=points)
    assert "double" in targets(graph_module)
    assert "build" in targets(graph_module)


class Tools:
    """Methods without an instance."""

    factor = 3.0

    @staticmethod
    def double(x: Tensor) -> Tensor:
        return x * 2

    @classmethod
    def build(cls, x: Tensor) -> Tensor:
        return x * cls.factor


def test_a_point_that_is_never_called_has_no_calls() -> None:
    found = captured(
        Model(lambda model, h: h), batch(2), points=[function("scale"), PointName("ModuleOutputs", "inner")]
    )
    assert found.calls(function("scale")) == []
    assert found.calls(PointName("ModuleOutputs", "inner")) == []


def test_arguments_of_a_named_function_may_be_sizes() -> None:
    model = Model(lambda model, h: h.repeat(2, 1)[: h.shape[0]] + sum(model.draw.listed(h.shape[0] - 1)))
    graph_module = graph_of(model, batch(2), points=[method("listed")])
    seed_everything(1)
    expected = model(batch(5))
    seed_everything(1)
    try:
        found = call_graph(graph_module, batch(5))
    except GuardError:
        return
    assert_same(expected, found)


class Odd(nn.Module):
    """Works on more than four rows in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        return twice(h)


def twice(x: Tensor) -> Tensor:
    return scale(x) if x.shape[0] > 4 else x * 2.0


def test_a_named_function_in_another_is_seen_at_sizes_at_which_it_is_called() -> None:
    points = [function("twice"), function("scale")]
    graph_module = graph_of(Odd(), batch(2), points=points)
    with pytest.raises(GuardError, match="size 0 of an input is 2, not 5"):
        call_graph(graph_module, batch(5))
    assert_replays(Odd(), (batch(5),), points=points)


class Collects(nn.Module):
    """Puts what it made into a dict that a method gives, and takes it out again."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.seen: dict[str, list[Tensor]] | None = None

    def collected(self) -> dict[str, list[Tensor]] | None:
        return self.seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {"made": []}
        found = self.collected()
        assert found is not None
        found["made"].append(self.fc(x))
        return sum(self.seen["made"], torch.zeros(()))


def test_a_run_on_values_is_given_the_very_result() -> None:
    model, point = Collects(), {"type": "MethodOutputs", "source": f"{__name__}.Collects.collected"}
    recorded = record(model, {"point": point}, batch(2))  # opened, and no IndexError of its own
    for n in (2, 5):
        assert_same(model(batch(n)), recorded(batch(n))[0])


def pair(x: Tensor) -> tuple[Tensor, Tensor | None]:
    return x * 2, (None if HALVES else x / 2)


HALVES: list[int] = []


def test_how_a_result_is_built_is_guarded() -> None:
    def twice_or_both(model: Any, h: Tensor) -> Tensor:
        first, second = pair(h)
        return first if second is None else first + second

    graph_module = graph_of(Model(twice_or_both), batch(2), points=[function("pair")])
    call_graph(graph_module, batch(3))
    HALVES.append(1)
    try:
        with pytest.raises(GuardError, match=r"gives \('tuple', .*, not \('tuple', .*'NoneType'"):
            call_graph(graph_module, batch(3))
    finally:
        HALVES.clear()


class Experts(nn.Module):
    """Gives each row to the weights of its group."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.weights = nn.Linear(8, 8), nn.Parameter(torch.randn(2, 8, 16))

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([x.shape[0] // 2, x.shape[0]], dtype=torch.int32)
        return functional.grouped_mm(scale(self.fc(x)), self.weights, offs=ends)


def test_experts_in_single_precision_are_recorded() -> None:
    def rows(n: int) -> Tensor:
        return torch.randn(n, 8, generator=torch.Generator().manual_seed(n))

    graph_module = assert_replays(Experts(), (rows(4),), (rows(6),), points=[function("scale")])
    assert any("grouped_mm" in str(node.target) for node in graph_module.graph.nodes)
