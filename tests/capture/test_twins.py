"""Parameters and buffers of the graph are the model's own, live, also when tied."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fxkd.capture.twins import Fakes, fake_of, fake_twins
from tests.capture.replay import assert_replays, captured, graph_of
from tests.support.models.tied import Tied
from tests.support.oracle import assert_same


class TiedHead(nn.Module):
    """Uses one weight as embedding and, by hand, as projection."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.register_buffer("offset", torch.ones(4))
        self.scale = torch.full((4,), 2.0)  # a plain tensor attribute

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = nn.functional.embedding(tokens, self.embedding.weight) * self.scale + self.offset
        return nn.functional.linear(hidden, self.head.weight, self.head.bias)


def reads(graph_module: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"]


def test_a_tied_weight_is_one_node() -> None:
    graph_module = graph_of(TiedHead(), torch.tensor([[1, 2]]))
    assert reads(graph_module) == ["model.embedding.weight", "model.scale", "model.offset", "model.head.bias"]


def test_tied_weights_are_replayed() -> None:
    assert_replays(TiedHead(), (torch.tensor([[1, 2]]),), (torch.tensor([[3, 4, 5]]),))


@pytest.mark.parametrize("assign", [False, True])
def test_loaded_weights_are_seen(assign: bool) -> None:
    torch.manual_seed(0)
    model, other = (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(),
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
    )
    opened = Opened(model)
    x = torch.randn(2, 3)
    graph_module = graph_of(opened, x)
    opened.inner.load_state_dict(other.state_dict(), assign=assign)
    assert_same(other.eval()(x), graph_module(x))


class Opened(nn.Module):
    """Reads the parameters of its parts itself, so that they are ``get_attr`` nodes."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.inner[0].weight, self.inner[0].bias)
        norm = self.inner[1]
        return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_a_part_replaced_afterwards_is_seen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    x = torch.randn(2, 3)
    graph_module = graph_of(model, x)
    model[0] = nn.Linear(3, 5)
    assert_same(model(x), graph_module(x))


def test_all_tensors_are_fake_inside_and_back_afterwards() -> None:
    model = TiedHead()
    before = {name: id(value) for name, value in [*model.named_parameters(), *model.named_buffers()]} | {
        "scale": id(model.scale)
    }
    with fake_twins(model, partial(fake_of, FakeTensorMode())) as places:
        assert isinstance(model.embedding.weight, FakeTensor)
        assert model.embedding.weight is model.head.weight
        assert isinstance(model.embedding.weight, nn.Parameter)
        assert isinstance(model.offset, FakeTensor)
        assert isinstance(model.scale, FakeTensor)
        assert sorted(place for _, place in places.values()) == ["embedding.weight", "head.bias", "offset", "scale"]
    after = {name: id(value) for name, value in [*model.named_parameters(), *model.named_buffers()]} | {
        "scale": id(model.scale)
    }
    assert after == before


def test_twins_go_away_after_an_error() -> None:
    model = TiedHead()
    weight = model.embedding.weight
    with pytest.raises(ValueError, match="inside"), fake_twins(model, partial(fake_of, FakeTensorMode())):
        raise ValueError("inside")
    assert model.embedding.weight is weight


def test_a_tensor_in_a_list_is_lifted_and_noted() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchors = [torch.ones(3), torch.full((3,), 2.0)]

        def forward(self, x: Tensor) -> Tensor:
            return x * self.anchors[1]

    found = captured(Lists(), torch.ones(2, 3))
    assert [name for name, _ in found.constants.named_buffers()] == ["constant_0"]
    assert "tensor of shape (3,) from outside the model is used as a constant at" in found.notes[0]
    assert "x * self.anchors[1]" in found.notes[0]
    assert_replays(Lists(), (torch.ones(2, 3),), (torch.randn(5, 3),))


OUTSIDE = torch.linspace(0, 1, 3)


def test_a_global_tensor_is_lifted_and_noted_once() -> None:
    class Global(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * OUTSIDE) + OUTSIDE

    found = captured(Global(), torch.ones(2, 3))
    assert len(found.notes) == 1
    assert found.constants.constant_0 is OUTSIDE
    assert not found.constants.state_dict()  # no part of anybody's checkpoint
    assert_replays(Global(), (torch.ones(2, 3),), (torch.randn(5, 3),))


def test_tied_case_of_the_suite_trains_one_weight() -> None:
    torch.manual_seed(0)
    model = Tied()
    copied = copy.deepcopy(model)
    tokens = torch.randint(0, 5, (2, 4))
    graph_module = graph_of(model, tokens)
    for run, _owner in ((copied, copied), (graph_module, model)):
        torch.manual_seed(1)
        output = run(tokens)
        torch.stack([leaf.square().sum() for leaf in torch.utils._pytree.tree_leaves(output)]).sum().backward()
    assert_same({n: p.grad for n, p in copied.named_parameters()}, {n: p.grad for n, p in model.named_parameters()})


def test_fakes_are_kept_until_a_run_changes_them() -> None:
    fakes, weight = Fakes(), nn.Parameter(torch.ones(2))
    mode = fakes.mode()
    twin = mode.from_tensor(weight)
    fakes.note([twin])
    assert fakes.mode() is mode
    twin.requires_grad_(False)
    assert fakes.mode() is not mode
    other = fakes.mode()
    fakes.note([other.from_tensor(weight)])
    other.from_tensor(weight).seen = True
    assert fakes.mode() is not other
