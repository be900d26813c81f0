"""Torch functions as nodes: in-place work, views, ``out=``, properties, nested results keep their types."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from tests.capture.replay import assert_replays, graph_of, targets
from tests.support.oracle import assert_same


class Model(nn.Module):
    """Run a function on a linear layer's output."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(4.0))
        self.register_buffer("count", torch.zeros(()))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.fc(x))


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def setitem(model: Model, h: Tensor) -> Tensor:
    h = h * 1
    h[:, 1] = h[:, 0] * 2
    h[h.shape[0] - 1, 2:] = 0
    return h


def view_write(model: Model, h: Tensor) -> Tensor:
    h = h * 1
    part = h[:, :2]
    part.mul_(3)
    h.t()[3].add_(1)
    return h


def out_argument(model: Model, h: Tensor) -> Tensor:
    room = torch.empty(h.shape[0], 4)
    torch.add(h.detach(), 1, out=room)
    torch.mul(room, 2, out=room)
    return h + room


def in_place_function(model: Model, h: Tensor) -> Tensor:
    h = h * 1
    h += 1
    torch.neg_(h)
    h *= 3
    functional.relu(h, inplace=True)
    return h


def buffer_write(model: Model, h: Tensor) -> Tensor:
    model.count += h.shape[0]
    model.table.mul_(0.5)
    model.table[1] = h.mean().detach()
    return h * model.table


def data_write(model: Model, h: Tensor) -> Tensor:
    copy = h.detach().clone()
    copy.data = copy * 2
    return h + copy


def masked(model: Model, h: Tensor) -> Tensor:
    h = h * 1
    h[h > 0] = 0.5
    return h.masked_fill(h < -1, 0.0)


def operators(model: Model, h: Tensor) -> Tensor:
    h = 1 - h / 2 + 3 * h - (h @ h.T @ h) * 1e-3
    h = 2 ** h.clamp(-1, 1) + abs(h) % 3 + -h
    return h + (~(h > 0)).to(h.dtype) + (1.0 / (2 + h.square())) + (h.detach() // 2) + 5 // (1 + h.detach().square())


def properties(model: Model, h: Tensor) -> Tensor:
    return h.T.mT + h.data + torch.view_as_real(torch.complex(h, h)).sum(-1).real + h.mT.T


def iteration(model: Model, h: Tensor) -> Tensor:
    a, b = h.split([1, 3], dim=1)
    return torch.cat([b, a], 1) + torch.stack(list(h.unbind(1)), 1)


def nested_functions(model: Model, h: Tensor) -> Tensor:
    values, indices = h.max(dim=1)
    top = h.topk(2, dim=1)
    return values + top.values[:, 0] + top[0][:, 1] + h.gather(1, indices[:, None])[:, 0]


def einsum(model: Model, h: Tensor) -> Tensor:
    return torch.einsum("bi,bj->ij", h, h) @ h.T + torch.tensordot(h, h, dims=([1], [1])).sum()


def factories(model: Model, h: Tensor) -> Tensor:
    row = torch.zeros(h.shape[0], 1, dtype=h.dtype, device=h.device) + torch.ones_like(h) + h.new_full((4,), 2.0)
    return h * row + torch.linspace(0, 1, h.shape[0])[:, None] + torch.eye(h.shape[0], 4)


def random_factories(model: Model, h: Tensor) -> Tensor:
    noise = torch.randn(h.shape[0], 4) + torch.rand_like(h) + torch.randint(3, (h.shape[0], 1))
    return functional.dropout(h + noise, 0.5, training=True)[torch.randperm(h.shape[0])]


def interpolated(model: Model, h: Tensor) -> Tensor:
    image = h[:, None, None, :].expand(-1, 2, 3, -1)
    return functional.interpolate(image, size=(image.shape[2] * 2, image.shape[3] // 2), mode="bilinear")


def attention(model: Model, h: Tensor) -> Tensor:
    heads = h.reshape(h.shape[0], 2, 1, 2)
    return functional.scaled_dot_product_attention(heads, heads, heads).reshape(h.shape)


def detached(model: Model, h: Tensor) -> Tensor:
    return h * h.detach() + h.clone().requires_grad_(True).sum()


def typed(model: Model, h: Tensor) -> Tensor:
    return h.to(torch.float64).to(h) + h.double().type_as(h) + h.float() + h.long().type(h.dtype)


def augmented_list(model: Model, h: Tensor) -> Tensor:
    kept = [h]
    kept.append(h + 1)
    kept[0] = kept[1] * 2
    return torch.stack(kept).sum(0)


FUNCTIONS = [
    setitem, view_write, out_argument, in_place_function, buffer_write, data_write, masked, operators, properties,
    iteration, nested_functions, einsum, factories, random_factories, interpolated, attention, detached, typed,
    augmented_list,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_replayed(function: Callable[..., Any]) -> None:
    assert_replays(Model(function), (batch(2),), (batch(5),))


def test_a_write_is_noted_with_its_memory() -> None:
    graph_module = graph_of(Model(view_write), batch(2))
    nodes = {str(getattr(node.target, "__name__", node.target)): node for node in graph_module.graph.nodes}
    memory = nodes["mul"].meta["storages"]  # h * 1
    assert nodes["mul_"].meta["mutates"] == memory
    assert nodes["add_"].meta["mutates"] == memory
    assert nodes["t"].meta["mutates"] == frozenset()


def test_a_moved_statistic_is_noted() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            norm = self.norm
            return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True)

    graph_module = assert_replays(Norm(), (batch(2),), (batch(5),))
    held = {str(node.target): node.meta["storages"] for node in graph_module.graph.nodes if node.op == "get_attr"}
    call = next(node for node in graph_module.graph.nodes if node.target is functional.batch_norm)
    assert call.meta["mutates"] == held["model.norm.running_mean"] | held["model.norm.running_var"]


# Results


@dataclass
class Registered:
    """An output that pytree knows."""

    a: Tensor
    b: Any = None


pytree.register_dataclass(Registered)


@dataclass
class Plain:
    """An output that pytree does not know."""

    a: Tensor
    b: list[Tensor]


Pair = namedtuple("Pair", "left right")


class Attributes(dict):  # type: ignore[type-arg]
    """A dict of its own class."""


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "dict": lambda h: {"a": h, "b": [h + 1, (h * 2,)], "n": None},
    "constants": lambda h: {"a": h, "flag": True, "name": "x", "number": 3},
    "tuple": lambda h: (h, h + 1),
    "list": lambda h: [h, None, h + 1],
    "namedtuple": lambda h: Pair(h, (h + 1, h * 2)),
    "ordered": lambda h: OrderedDict(a=h, b=h + 1),
    "own_dict": lambda h: Attributes(a=h, b=[h]),
    "registered": lambda h: Registered(h, Registered(h + 1)),
    "none": lambda h: (h, None),
    "size": lambda h: (h, h.shape[0], h.shape[0] / 2),
    "torch_result": lambda h: h.max(dim=1),
    "input_itself": lambda h: h,
    "empty": lambda h: (h, [], {}, ()),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_type_of_the_output_is_kept(name: str) -> None:
    function = OUTPUTS[name]
    assert_replays(Model(lambda model, h: function(h)), (batch(2),), (batch(5),))


def test_a_dataclass_that_pytree_does_not_know_is_kept() -> None:
    model = Model(lambda model, h: Plain(h, [h + 1]))
    graph_module = graph_of(model, batch(2))
    assert_same(model(batch(5)), graph_module(batch(5)))


def test_a_model_output_is_kept() -> None:
    transformers = pytest.importorskip("transformers")
    made = transformers.modeling_outputs.SequenceClassifierOutput
    model = Model(lambda model, h: made(loss=h.mean(), logits=h, hidden_states=(h, h + 1)))
    graph_module = graph_of(model, batch(2))
    found = graph_module(batch(5))
    assert type(found) is made
    assert found.attentions is None
    assert_same(dict(model(batch(5))), dict(found))
    assert len(found.hidden_states) == 2


def test_the_result_of_the_root_may_be_a_size_alone() -> None:
    graph_module = graph_of(Model(lambda model, h: h.shape), batch(2))
    assert tuple(graph_module(batch(5))) == (5, 4)


def test_a_read_that_nobody_needs_leaves_no_node() -> None:
    graph_module = graph_of(Model(lambda model, h: (h.shape[0] + 1, h.max(dim=1), h.T, h)[-1]), batch(2))
    assert "size" not in targets(graph_module)
    assert "getitem" not in targets(graph_module)
