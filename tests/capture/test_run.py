"""What cannot be a graph is refused, with the line and the remedy."""

import inspect
import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxkd.capture import Inputs, PointName, capture
from fxkd.errors import CaptureError, PointError
from tests.capture.replay import assert_replays, captured, graph_of, targets
from tests.support.oracle import assert_same


class Model(nn.Module):
    """Run a function on a linear layer's output."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.fc(x))


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def refused(function: Callable[[Tensor], Any], *, match: str) -> str:
    """Check that capture refuses; give the message."""
    with pytest.raises(CaptureError, match=match) as caught:
        captured(Model(function), batch(2))
    return str(caught.value)


# Draws


def python_draw(h: Tensor) -> Tensor:
    h = h + 1
    share = random.random()
    return h * share


def numpy_draw(h: Tensor) -> Tensor:
    return h * float(np.random.beta(1, 1))


def coin(h: Tensor) -> Tensor:
    if random.random() < 0.5:
        return h * 2
    return h


def shuffled(h: Tensor) -> Tensor:
    order = [0, 1, 2, 3]
    random.shuffle(order)
    return h[:, order]


DRAWS = {
    python_draw: r"share = random\.random\(\)",
    numpy_draw: r"np\.random\.beta\(1, 1\)",
    coin: r"if random\.random\(\) < 0\.5",
    shuffled: r"random\.shuffle\(order\)",
}


@pytest.mark.parametrize("function", DRAWS, ids=lambda function: function.__name__)
def test_a_draw_outside_a_named_function_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()
    message = refused(function, match="would be the same at every step; name the function or method that does it")
    line = re.search(r"test_run\.py:(\d+) \((.*)\)", message)
    assert line is not None, message
    assert re.search(DRAWS[function], line[2])
    first = function.__code__.co_firstlineno
    assert first < int(line[1]) < first + 6
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


class DrawsInside(nn.Module):
    """A leaf that draws: it runs as it is at every step."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.random() * float(np.random.rand())


def test_a_draw_inside_a_leaf_is_allowed() -> None:
    graph_module = assert_replays(nn.Sequential(nn.Linear(4, 4), DrawsInside()), (batch(2),), (batch(5),))
    assert targets(graph_module) == ["input", "model.0", "model.1", "output"]
    assert not torch.equal(graph_module(batch(2)), graph_module(batch(2)))


def test_a_draw_inside_an_opened_module_is_refused() -> None:
    point = PointName("ModuleOutputs", "1.0")
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), DrawsInside()))
    assert_replays(model, (batch(2),), (batch(5),), points=[point])
    with pytest.raises(CaptureError, match=r"random\.random\(\) \* float"):
        captured(DrawsInside(), batch(2))


def test_torch_draws_are_nodes() -> None:
    assert_replays(Model(lambda h: h + torch.randn_like(h) * torch.rand(())), (batch(2),), (batch(5),))


def test_a_private_generator_is_not_noticed_as_a_global_one() -> None:
    # random.Random(0) made in forward gives the same at every call: a constant by right
    assert_replays(Model(lambda h: h * random.Random(0).random()), (batch(2),), (batch(5),))


def test_a_private_generator_that_lives_on_is_not_frozen_in_silence() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = random.Random(0)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.generator.random()

    model, own = Own(), Own()
    try:
        graph_module = graph_of(model, batch(2))
    except CaptureError:
        return
    for _ in range(2):
        assert_same(own(batch(2)), graph_module(batch(2)))


# Values of tensors


def branch(h: Tensor) -> Tensor:
    if h.sum() > 0:
        return h * 2
    return h


def item(h: Tensor) -> Tensor:
    return h * h.max().item()


def listed(h: Tensor) -> Tensor:
    return h * sum(h[0].tolist())


def nonzero(h: Tensor) -> Tensor:
    return h[h > 0].sum() * h


def as_index(h: Tensor) -> Tensor:
    return h * [1.0, 2.0][int(h.argmax()) % 2]


DATA = {
    branch: r"if h\.sum\(\) > 0",
    item: r"h\.max\(\)\.item\(\)",
    listed: r"tolist",
    as_index: r"int\(h\.argmax\(\)\)",
}


@pytest.mark.parametrize("function", DATA, ids=lambda function: function.__name__)
def test_a_value_that_decides_is_refused_with_its_line(function: Callable[[Tensor], Tensor]) -> None:
    message = refused(function, match=r"test_run\.py:\d+ .*name the function or method.*or use backend='eager'")
    assert re.search(DATA[function], message)
    assert message.startswith("model: the value of a tensor decides what is run at")


def test_a_data_dependent_shape_is_refused_or_right() -> None:
    try:
        assert_replays(Model(nonzero), (batch(2),), (batch(5),))
    except CaptureError as error:
        assert "h[h > 0].sum()" in str(error)  # noqa: PT017


def test_numpy_is_refused_with_its_line() -> None:
    message = refused(lambda h: torch.from_numpy(h.detach().numpy() * 2), match=r"test_run\.py:\d+")
    assert "backend='eager'" in message


def test_an_error_of_the_model_says_where() -> None:
    def wrong(h: Tensor) -> Tensor:
        return h @ torch.zeros(7, 1)

    with pytest.raises(CaptureError, match=r"RuntimeError at .*test_run\.py:\d+ \(return h @ torch\.zeros\(7, 1\)\)"):
        captured(Model(wrong), batch(2))


@pytest.mark.parametrize("points", [[], [PointName("FunctionOutputs", "torch.nn.functional.softmax")]])
def test_an_error_of_the_model_is_told_alike_in_both_runs(points: list[PointName]) -> None:
    def wrong(h: Tensor) -> Tensor:
        raise KeyError("missing")

    with pytest.raises((CaptureError, KeyError), match="missing"):
        captured(Model(wrong), batch(2), points=points)


# Points


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (PointName("ModuleOutputs", "fcc"), "no module 'fcc'.*'fc'"),
        (PointName("Parameter", "fc.weigth"), "no parameter 'fc.weigth'.*'fc.weight'"),
        (PointName("FunctionOutputs", "torch.nn.functional.softmacks"), "softmacks"),
        (PointName("MethodOutputs", "fractions.Fraction.nothing"), "nothing"),
    ],
)
def test_an_unknown_point_is_refused(point: PointName, message: str) -> None:
    with pytest.raises(PointError, match=message):
        captured(Model(lambda h: h), batch(2), points=[point])


def test_a_parameter_is_a_point() -> None:
    points = [PointName("Parameter", "fc.weight"), PointName("Parameter", "fc.bias")]
    found = captured(Model(lambda h: h), batch(2), points=points)
    assert [str(node.target) for point in points for node in found.calls(point)] == ["model.fc.weight", "model.fc.bias"]


@pytest.mark.parametrize("path", ["0", "0.0", "1"])
def test_a_graph_holds_for_the_flags_of_its_capture(path: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.BatchNorm1d(4))
    found = captured(model, batch(3), points=[PointName("ModuleOutputs", "0.0")])
    assert found.holds()
    model.get_submodule(path).eval()
    assert not found.holds()


def test_an_opened_dropout_reads_the_mode_of_its_capture() -> None:
    model = Model(lambda h: nn.functional.dropout(h, 0.5, model_of[0].training))
    model_of = [model]
    trained = graph_of(model, batch(2))
    model.eval()
    served = graph_of(model, batch(2))
    assert_same(model(batch(5)), served(batch(5)))
    assert not torch.equal(trained(batch(5)), served(batch(5)))


def test_capture_is_the_same_twice() -> None:
    model = Model(lambda h: h * h.shape[0] + OFFSETS[0])
    first, second = captured(model, batch(2)), captured(model, batch(3))
    assert str(first.graph) == str(second.graph)
    assert first.notes == second.notes


OFFSETS = [torch.ones(4)]


def test_a_name_and_a_layout_may_be_given() -> None:
    found = capture(Model(lambda h: h), Inputs((batch(2),)), name="teacher")
    assert [node.name for node in found.graph.nodes] == ["x", "guard_shape", "teacher_fc", "output"]


def test_nan_is_a_constant_like_another() -> None:
    model = Model(lambda h: h.masked_fill(h < 0, float("nan")))
    assert_same(model(batch(5)).isnan(), graph_of(model, batch(2))(batch(5)).isnan())


# Caches outside the model


@lru_cache
def positions(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32)


@pytest.mark.parametrize("before", range(4))
def test_a_cached_function_is_not_poisoned(before: int) -> None:
    positions.cache_clear()
    for count in range(10, 10 + before):  # one more each: how often it was called already must not matter
        positions(count)
    model = Model(lambda h: h + positions(4))
    graph_module = graph_of(model, batch(2))
    assert type(positions(4)) is Tensor
    assert_same(model(batch(5)), graph_module(batch(5)))


CACHE: dict[int, Tensor] = {}


def cached_positions(count: int) -> Tensor:
    if count not in CACHE:
        CACHE[count] = torch.arange(count, dtype=torch.float32)
    return CACHE[count]


def test_a_tensor_in_a_global_cache_is_refused() -> None:
    CACHE.clear()
    with pytest.raises(CaptureError, match="cached_positions"):
        graph_of(Model(lambda h: h + cached_positions(4)), batch(2))
    CACHE.clear()


class Pair(NamedTuple):
    one: Tensor
    rest: tuple[Tensor, int]


def test_named_tuples_are_given() -> None:
    assert_replays(Model(lambda x: Pair(x, (x.relu(), x.shape[0]))), (batch(2),), (batch(3),))


def test_hooks_on_tensors_that_each_call_makes_anew() -> None:
    def hooked(x: Tensor) -> Tensor:
        factor = 3.0
        if x.requires_grad:
            x.register_hook(lambda gradient, more=2.0: gradient * factor * more)
        return x.relu()

    assert_replays(Model(hooked), (batch(2),), (batch(3),))


def test_hooks_that_hold_a_tensor_are_refused() -> None:
    def hooked(x: Tensor) -> Tensor:
        scale = x.detach().mean()
        x.register_hook(lambda gradient: gradient * scale)
        return x.relu()

    refused(hooked, match="makes an object 'function' at each call")


def test_what_one_call_leaves_to_the_next_is_refused() -> None:
    past: list[Tensor] = []

    def remembers(x: Tensor) -> Tensor:
        past.append(x.detach().mean())
        return x + past[0]

    model = Model(remembers)
    model.past = past
    with pytest.raises(CaptureError, match=r"keeps something for its next call: a tensor of shape .* used at .*call"):
        captured(model, batch(2))


class Memo(nn.Module):
    """Makes a bias at its first call in eval mode, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table, self.kept = nn.Linear(4, 4), nn.Parameter(torch.randn(7)), dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        if self.training:
            return h + self.table[:4]
        if "bias" not in self.kept:
            self.kept["bias"] = self.table[:4]
        return h + self.kept["bias"]


def test_what_is_kept_from_the_first_call_on_is_a_constant_after_it() -> None:
    model = nn.Sequential(Memo(), nn.ReLU()).eval()
    with pytest.raises(CaptureError, match=r"keeps something for its next call: .*under torch.no_grad\(\)"):
        captured(model, batch(2), points=[PointName("ModuleOutputs", "0.fc")])
    with torch.no_grad():
        model(batch(3))
    assert_replays(model, (batch(2),), (batch(5),), points=[PointName("ModuleOutputs", "0.fc")])


def test_torchscript_is_refused() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.trace(nn.Linear(4, 4), batch(2))
    for model in (scripted, nn.Sequential(scripted, nn.ReLU())):
        with pytest.raises(CaptureError, match=r"is TorchScript.*backend='eager'"):
            captured(model, batch(2))


def test_torch_calling_a_named_function_for_its_fakes_is_no_call() -> None:
    """To find the sizes of a stack of tensors without values torch calls ``torch.cat``."""
    path = f"{__name__}.torch.cat"

    def both(x: Tensor) -> Tensor:
        return torch.cat([torch.stack([x, x.relu()], dim=1).flatten(1), x], dim=1)

    point = PointName("FunctionOutputs", path)
    assert_replays(Model(both), (batch(2),), (batch(3),), points=[point])
    nodes = captured(Model(both), batch(2), points=[point]).graph.nodes
    assert [len(node.meta["calls"]) for node in nodes if "calls" in node.meta] == [1]


class AsksForSignature(Model):
    def part(self, x: Tensor, scale: float) -> Tensor:
        return x.relu() * scale

    def forward(self, x: Tensor) -> Tensor:
        count = len(inspect.signature(self.part).parameters)
        return self.part(self.fc(x), float(count)) if count == 2 else x


def test_a_named_method_keeps_its_signature() -> None:
    point = PointName("MethodOutputs", f"{__name__}.AsksForSignature.part")
    assert_replays(AsksForSignature(torch.relu), (batch(2),), (batch(3),), points=[point])


class CountsBehindAComparison(nn.Module):
    """Compares two sizes, and gives something else at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape[0] <= y.shape[0]:
            x = x + 1
        self.calls += 1
        return x * self.calls


def test_what_comes_behind_a_comparison_of_two_sizes_is_compared_too() -> None:
    inputs = Inputs((torch.ones(2, 3), torch.ones(4, 3)))
    with pytest.raises(CaptureError, match=r"the forward reads and changes '.*calls'"):
        capture(CountsBehindAComparison(), inputs)
