"""Modules: whole or opened, called twice, shared, made in forward; custom autograd functions; hooks."""

import contextlib
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxkd.capture import PointName
from fxkd.errors import CaptureError, GuardError
from tests.capture.replay import assert_replays, captured, graph_of, targets
from tests.support.oracle import assert_same


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def outputs(path: str) -> PointName:
    return PointName("ModuleOutputs", path)


class Block(nn.Module):
    """Linear, then twice the same activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.Tanh()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.act(self.act(self.fc(x)) * scale)


class Model(nn.Module):
    """One block called twice, once with a keyword, and under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = Block()
        self.alias = self.block
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x) + self.alias(x, scale=2.0))


def test_without_points_only_the_root_is_opened() -> None:
    graph_module = assert_replays(Model(), (batch(2),), (batch(5),))
    assert targets(graph_module) == ["x", "model.block", "model.block", "add", "model.head", "output"]


def test_the_ancestors_of_a_point_are_opened() -> None:
    graph_module = assert_replays(Model(), (batch(2),), (batch(5),), points=[outputs("block.fc")])
    assert targets(graph_module).count("model.block.fc") == 2
    assert "model.block" not in targets(graph_module)


@pytest.mark.parametrize("path", ["block", "alias"])
def test_a_shared_module_is_a_point_under_each_name(path: str) -> None:
    model = Model()
    found = captured(model, batch(2), points=[outputs(path)])
    assert [node.target for node in found.calls(outputs(path))] == ["model.block", "model.block"]


def test_points_by_two_names_of_one_module() -> None:
    points = [outputs("block.act"), outputs("alias.act"), PointName("ModuleInputs", "alias.fc")]
    found = captured(Model(), batch(2), points=points)
    assert [len(found.calls(point)) for point in points] == [4, 4, 2]
    assert found.calls(points[0]) == found.calls(points[1])


def test_calls_are_in_order_and_hold_their_values() -> None:
    model, x = Model(), batch(5)
    found = captured(model, batch(2), points=[outputs("block.act")])
    values: list[Tensor] = []
    handle = model.block.act.register_forward_hook(lambda module, args, output: values.append(output))
    model(x)
    handle.remove()
    interpreter = Values(nn.ModuleDict({"model": model}), found.graph)
    interpreter.run(x)
    assert_same(values, [interpreter.kept[node] for node in found.calls(outputs("block.act"))])


class Values(fx.Interpreter):
    """Keep what every node gave."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.kept: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.kept[n] = super().run_node(n)
        return self.kept[n]


def test_the_inputs_of_a_module_are_a_point() -> None:
    model, x = Model(), batch(5)
    point = PointName("ModuleInputs", "block")
    found = captured(model, batch(2), points=[point])
    interpreter = Values(nn.ModuleDict({"model": model}), found.graph)
    interpreter.run(x)
    first, second = [interpreter.kept[node] for node in found.calls(point)]
    assert_same((x,), first)
    assert second.kwargs == {"scale": 2.0}


def test_the_root_is_a_point() -> None:
    found = captured(Model(), batch(2), points=[outputs("")])
    (node,) = found.calls(outputs(""))
    assert node.target == "model.head"


def test_a_module_made_in_forward_is_seen_through() -> None:
    class Builds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return nn.Sequential(nn.ReLU(), nn.Dropout(0.5), self.fc)(x)

    graph_module = assert_replays(Builds(), (batch(2),), (batch(5),))
    assert "model.fc" in targets(graph_module)
    assert "relu" in targets(graph_module)


def test_a_leaf_that_writes_into_the_list_it_is_given() -> None:
    class Stage(nn.Module):
        def forward(self, given: list[Tensor]) -> list[Tensor]:
            for index in range(len(given)):
                given[index] = given[index] * 2
            return [sum(given), given[0] * 3]

    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage = Stage()

        def forward(self, x: Tensor) -> Tensor:
            held = [x, x + 1]
            return torch.cat(self.stage(self.stage(held))) + held[0].sum()

    assert_replays(Stages(), (batch(2),), (batch(5),))


def test_a_leaf_that_gives_a_list_of_another_length_is_refused() -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return list(x.unbind(0))

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = Rows()

        def forward(self, x: Tensor) -> Tensor:
            return sum(self.rows(x))

    model = Sums()
    graph_module = graph_of(model, batch(2))
    assert_same(model(batch(2)), graph_module(batch(2)))
    with contextlib.suppress(GuardError):
        assert_same(model(batch(5)), graph_module(batch(5)))


def test_a_leaf_that_works_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x)
            self.relu(h)
            return h * 2

    graph_module = assert_replays(InPlace(), (batch(2),), (batch(5),))
    nodes = {str(node.target): node for node in graph_module.graph.nodes}
    assert nodes["model.relu"].meta["mutates"] == nodes["model.fc"].meta["storages"]


def test_a_leaf_called_under_try() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(9, 4)
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wide(x)
            except RuntimeError:
                return self.block(x)

    for points in ([], [outputs("block.act")]):
        graph_module = assert_replays(Tries(), (batch(2),), (batch(5),), points=points)
        assert "model.wide" not in targets(graph_module)


def test_a_leaf_that_returns_objects() -> None:
    class Geometry:
        def __init__(self, offset: Tensor, size: int) -> None:
            self.offset, self.size = offset, size

    class Makes(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Geometry]:
            return x * 2, Geometry(x.mean(), 3)

    class Takes(nn.Module):
        def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
            return x * geometry.size + geometry.offset

    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.makes, self.takes = Makes(), Takes()

        def forward(self, x: Tensor) -> Tensor:
            return self.takes(*self.makes(x))

    assert_replays(Passes(), (batch(2),), (batch(5),))


# Custom autograd functions


class Straight(torch.autograd.Function):
    """Round forward, identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Reverse(torch.autograd.Function):
    """Identity forward, the negative backward; several arguments and results."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        ctx.scale = scale
        return x.view_as(x), x.detach() * 2

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * first, None


class Quantized(nn.Module):
    """Uses two custom functions, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = Straight.apply(self.fc(x) * 3)
        first, second = Reverse.apply(h, 0.5)
        return Straight.apply(first * second + self.fc.weight.sum())


@pytest.mark.parametrize("points", [[], [outputs("fc")]], ids=["root", "point"])
def test_a_custom_backward_is_kept(points: list[PointName]) -> None:
    model = Quantized()
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=points)
    assert sum(name in ("apply_Straight", "apply_Reverse") for name in targets(graph_module)) == 3
    assert model.fc.weight.grad is not None
    assert bool(model.fc.weight.grad.abs().sum() > 0)


def test_a_custom_function_takes_a_free_size() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Reverse.apply(x * 2, x.shape[0])[0]

    x = batch(5).requires_grad_(True)
    graph_module = graph_of(Scaled(), batch(2))
    graph_module(x).sum().backward()
    assert_same(x.grad, torch.full_like(x, -10.0))


# Side ways


class Collects(nn.Module):
    """A hook inside a leaf collects what the root uses: the leaf must be opened."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 4), Block(), nn.Linear(4, 4))
        self.kept: dict[str, Tensor] = {}
        self.body[1].fc.register_forward_hook(lambda module, args, output: self.kept.update(inner=output))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.kept["inner"]


def test_a_tensor_that_leaks_from_a_leaf_opens_it() -> None:
    graph_module = assert_replays_without_copy(Collects())
    assert "model.body.1.fc" in targets(graph_module)
    assert "model.body.0" in targets(graph_module)


def assert_replays_without_copy(model: nn.Module) -> fx.GraphModule:
    """As ``assert_replays``, for a model whose hook is bound to itself."""
    graph_module = graph_of(model, batch(2))
    assert_same(model(batch(5)), graph_module(batch(5)))
    return graph_module


def test_a_leaf_may_keep_a_tensor_that_nobody_uses() -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x * 2
            return self.last + 1

    model = nn.Sequential(Keeps())
    assert targets(graph_of(model, batch(2)))[1:] == ["model.0", "output"]
    assert not hasattr(model[0], "last")


def test_hooks_on_an_opened_module_are_seen() -> None:
    model = Model()
    model.block.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.block.register_forward_hook(lambda module, args, output: output * 2)
    graph_module = assert_replays(model, (batch(2),), (batch(5),), points=[outputs("block.fc")])
    assert "model.block" not in targets(graph_module)


def test_a_parametrization_stays_live() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    torch.nn.utils.parametrizations.weight_norm(model[0])
    graph_module = assert_replays(model, (batch(2),), (batch(5),))
    with torch.no_grad():
        model[0].parametrizations.weight.original0.mul_(3)
    assert_same(model(batch(5)), graph_module(batch(5)))


def test_a_parametrized_weight_that_an_opened_module_reads() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc = nn.Linear(4, 4)
            torch.nn.utils.parametrizations.weight_norm(self.fc)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.fc.weight, self.fc.bias)

    assert_replays(Reads(), (batch(2),), (batch(5),))


def test_activation_checkpointing_around_a_point() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=False)

    assert_replays(Checkpointed(), (batch(2),), (batch(5),), points=[outputs("block.fc")])


def test_reentrant_checkpointing_around_a_point_is_refused_or_right() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.entry = nn.Linear(4, 4)
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(self.block, self.entry(x), use_reentrant=True)

    point = outputs("block.fc")
    try:
        found = captured(Checkpointed(), batch(2), points=[point])
    except CaptureError:
        return
    assert found.calls(point), "the point is called, so it must be found or refused by name"
    assert_replays(Checkpointed(), (batch(2),), (batch(5),), points=[point])


def test_attributes_that_forward_writes_are_not_lost() -> None:
    class Center(nn.Module):
        """Moves its buffer by assignment, as many EMA centers do."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("center", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.center = self.center * 0.9 + x.detach().mean(0) * 0.1
            return x - self.center

    with suppress(CaptureError):  # refused, with a reason, is right too
        assert_replays(Center(), (batch(2),), (batch(5),))


def test_a_counter_that_forward_moves_is_not_frozen_in_silence() -> None:
    class Warm(nn.Module):
        """Scales by how often it was called."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    model, own = Warm(), Warm()
    try:
        found = captured(model, batch(2))
    except CaptureError:
        return
    if any("calls" in note for note in found.notes):
        return
    graph_module = graph_of(model, batch(2))
    for _ in range(2):
        assert_same(own(batch(5)), graph_module(batch(5)))
