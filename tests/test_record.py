"""Recorders without a teacher: ``fxkd.record``."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import FxkdError, SpecError
from tests.support.oracle import assert_same


class Model(nn.Module):
    """Calls one layer twice and overwrites what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.layer(x).relu_()
        x = self.layer(self.drop(x))
        return {"y": self.norm(x)}


def by_hand(model: Model, x: Tensor) -> list[Tensor]:
    first = model.layer(x)
    return [first, model.layer(model.drop(first.relu()))]


def test_output_and_records() -> None:
    model, x = Model(), torch.randn(5, 4)
    recorded = fxkd.record(model, ["layer"], example_inputs=torch.randn(3, 4))
    reference = copy.deepcopy(model)
    torch.manual_seed(0)
    expected = by_hand(reference, x)
    torch.manual_seed(0)
    output, records = recorded(x)
    assert list(records) == ["layer"]
    assert_same(expected, records["layer"])
    assert_same(reference.norm(expected[1]), output["y"])
    assert recorded.model is model
    assert not model.layer._forward_hooks


def test_gradients_flow_through_records() -> None:
    model, x = Model().eval(), torch.randn(5, 4)
    reference = copy.deepcopy(model)
    _, records = fxkd.record(model, {"twice": "layer"})(x)
    sum(value.square().sum() for value in records["twice"]).backward()
    sum(value.square().sum() for value in by_hand(reference, x)).backward()
    assert_same(reference.layer.weight.grad, model.layer.weight.grad)


def test_kinds_of_points() -> None:
    recorders = {
        "given": {"type": "ModuleInputs", "source": "norm"},
        "weight": {"type": "Parameter", "source": "layer.weight"},
        "relu": {"type": "MethodOutputs", "source": "torch.Tensor.relu_"},
    }
    model, x = Model().eval(), torch.randn(5, 4)
    kept = {name: recorder for name, recorder in recorders.items() if name != "relu"}
    _, records = fxkd.record(model, kept)(x)
    assert_same(by_hand(model, x)[1], records["given"][0][0])
    assert records["weight"][0] is model.layer.weight


@pytest.mark.parametrize("mode", [True, False])
def test_modes(mode: bool) -> None:
    model, x = Model(), torch.randn(5, 4)
    recorded = fxkd.record(model, ["layer"], example_inputs=x).train(mode)
    reference = copy.deepcopy(model)
    torch.manual_seed(0)
    expected = reference(x)
    torch.manual_seed(0)
    assert_same(expected, recorded(x)[0])


def test_copies() -> None:
    recorded, x = fxkd.record(Model().eval(), ["layer"], example_inputs=torch.randn(3, 4)), torch.randn(5, 4)
    expected = recorded(x)
    for other in (copy.deepcopy(recorded), pickle.loads(pickle.dumps(recorded)), recorded.double().float()):
        assert_same(expected, other(x))


def test_it_compiles() -> None:
    recorded, x = fxkd.record(Model().eval(), ["layer"], example_inputs=torch.randn(3, 4)), torch.randn(5, 4)
    assert_same(recorded(x), torch.compile(recorded, backend="aot_eager", fullgraph=True)(x))


@pytest.mark.parametrize(
    ("recorders", "words"),
    [
        (["layr"], ["recorders.layr.source", "'layer'"]),
        ({"a": {"type": "ModuleOutput", "source": "layer"}}, ["recorders.a.type", "'ModuleOutputs'"]),
        ({"a": "layr", "b": {"source": "layer"}}, ["2 problems", "recorders.a.source", "recorders.b"]),
        ([], ["recorders: is []"]),
        (3, ["recorders: is 3"]),
    ],
)
def test_mistakes(recorders: Any, words: list[str]) -> None:
    with pytest.raises(SpecError) as raised:
        fxkd.record(Model(), recorders)
    assert all(word in str(raised.value) for word in words)


def test_what_is_never_called() -> None:
    model = Model()
    model.spare = nn.Linear(4, 4)
    with pytest.raises(FxkdError, match=r"recorders\.spare\.source.*does not call"):
        fxkd.record(model, ["spare"], example_inputs=torch.randn(3, 4))


def test_not_a_model() -> None:
    with pytest.raises(SpecError, match="model: is a int"):
        fxkd.record(3, ["layer"])
