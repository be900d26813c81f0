"""Losses, their sum, the student's own loss, and what a step returns."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxkd.errors import PointError
from fxkd.passes import InsertLosses, InsertRecords, run
from fxkd.passes.insert_losses import OwnLoss, Source, add_losses, mean_of, returned_losses
from tests.passes.joint import batch, joined, outputs, shape_of
from tests.support.oracle import assert_same


class Model(nn.Module):
    """Give a pair twice, then whatever ``finish`` makes of it."""

    def __init__(self, finish: Any = lambda h: h) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pair = Pair()
        self.finish = finish

    def forward(self, x: Tensor) -> Any:
        first, _ = self.pair(x)
        return self.finish(self.pair(first)[1])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x), x.tanh()


class Difference(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square()


class Split(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x * 3


class Tripled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3


def source(side: str = "student", **options: Any) -> Source:
    return Source(side=side, recorder="pair", **options)


def inserted(
    losses: dict[str, dict[str, Source]], own: OwnLoss | None = None, finish: Any = lambda h: h, **options: Any
) -> fx.GraphModule:
    points = {"pair": outputs("pair")}
    module = joined(Model(finish), Model(), points=points.values(), extra=("labels",))
    module.losses = nn.ModuleDict({name: Difference() for name in losses})
    module.connectors = nn.ModuleDict({"split": Split(), "tripled": Tripled()})
    module.student_loss = nn.MSELoss()
    records = [InsertRecords(points, side) for side in ("teacher", "student")]
    return run(module, [*records, InsertLosses(losses, own, **options)])


def call(module: fx.GraphModule) -> dict[str, Any]:
    return module(batch(5), torch.ones(5, 4))


def values() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give what the pair gives at its two calls, computed by hand."""
    model, x = Model(), batch(5)
    first = model.pair.fc(x)
    return first, x.tanh(), model.pair.fc(first), first.tanh()


def test_a_value_is_picked_by_call_and_place_and_goes_through_its_connector() -> None:
    a = source(record_idx=1, data_idx=0, connector="split", connector_idx=1)
    b = source("teacher", record_idx=-2, data_idx=1)
    result = call(inserted({"loss_pair": {"a": a, "b": b}}))
    _, second, third, _ = values()
    assert_same(result["losses"]["loss_pair"], (third * 3 - second).square().mean(), 1e-5)
    assert_same(result["loss"], result["losses"]["loss_pair"])


def test_a_connector_may_give_one_value() -> None:
    mapping = {"a": source(data_idx=0, connector="tripled"), "b": source("teacher", data_idx=1)}
    first, second, _, _ = values()
    result = call(inserted({"loss_pair": mapping}))
    assert_same(result["losses"]["loss_pair"], (first * 3 - second).square().mean(), 1e-5)


def test_only_losses_called_loss_are_summed() -> None:
    mapping = {"a": source(data_idx=0), "b": source("teacher", data_idx=1)}
    result = call(inserted({"loss_one": mapping, "metric": mapping, "two_loss": mapping}))
    assert list(result["losses"]) == ["loss_one", "metric", "two_loss"]
    assert_same(result["loss"], result["losses"]["loss_one"] * 2)


def test_an_input_of_the_call_is_an_argument() -> None:
    result = call(inserted({"loss": {"a": source(data_idx=0), "b": Source(input="labels")}}))
    assert_same(result["loss"], (values()[0] - 1).square().mean(), 1e-5)


def test_without_losses_there_is_none() -> None:
    result = call(inserted({}))
    assert result["loss"] is None
    assert result["losses"] == {}
    assert result["student_loss"] is None


def test_an_own_loss_from_what_the_student_returns() -> None:
    result = call(inserted({}, OwnLoss(), finish=lambda h: {"loss": h.mean(), "aux_loss": h.square(), "logits": h}))
    fourth = values()[3]
    assert_same(result["student_loss"], fourth.mean() + fourth.square().mean(), 1e-5)
    assert_same(result["loss"], result["student_loss"])


@dataclass
class Result:
    loss: Tensor
    logits: Tensor


def test_an_own_loss_that_is_an_attribute() -> None:
    result = call(inserted({}, OwnLoss(), finish=lambda h: Result(h.mean(), h)))
    assert_same(result["student_loss"], values()[3].mean())


def test_an_own_loss_by_a_module() -> None:
    own = OwnLoss(args={"input": None, "target": "labels"})
    result = call(inserted({}, own))
    assert_same(result["loss"], (values()[3] - 1).square().mean(), 1e-5)


def test_the_output_may_be_left_out() -> None:
    assert call(inserted({}, return_output=False))["output"] is None
    assert_same(call(inserted({}))["output"], values()[3])


def test_records_are_returned_where_asked() -> None:
    records = call(inserted({}, return_records={"student": ["pair"], "teacher": []}))["records"]
    first, second, third, fourth = values()
    assert_same(records, {"student": {"pair": [(first, second), (third, fourth)]}, "teacher": {}})


def test_nodes_say_what_they_are() -> None:
    a = source(data_idx=0, connector="split", connector_idx=0)
    module = inserted({"loss": {"a": a, "b": source("teacher", data_idx=0)}})
    parts = {str(node.target): node.meta["part"] for node in module.graph.nodes if node.meta.get("part")}
    assert parts["losses.loss"] == "loss"
    assert parts["connectors.split"] == "connector"
    assert "Loss" in {node.name for node in module.graph.nodes}
    assert shape_of(module.graph)[-1] == "output"


@pytest.mark.parametrize("index", [2, -3])
def test_a_call_that_is_not_made_is_refused(index: int) -> None:
    with pytest.raises(
        PointError, match=rf"loss\.a\.record_idx: {index}, but student calls the point of 'pair' 2 times"
    ):
        inserted({"loss": {"a": source(record_idx=index, data_idx=0), "b": source("teacher", data_idx=0)}})


def test_an_input_that_the_call_has_not_is_refused() -> None:
    with pytest.raises(PointError, match=r"loss\.b: no argument 'label' in the call, which has 'x', 'labels'"):
        inserted({"loss": {"a": source(data_idx=0), "b": Source(input="label")}})


def test_a_mean_of_whatever_a_loss_gives() -> None:
    assert mean_of(torch.tensor(3.0)) == 3
    assert mean_of(torch.tensor([1.0, 3.0])) == 2
    assert mean_of([torch.tensor([1.0, 3.0]), torch.tensor(5.0)]) == 7
    assert add_losses([torch.tensor(1.0), torch.tensor(2.0)]) == 3


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"loss": torch.ones(()), "logits": torch.ones(1)}, ["loss"]),
        ({"loss_cls": torch.ones(()), "loss_box": torch.ones(()), "n": 1}, ["loss_cls", "loss_box"]),
        ({"loss": None}, []),
        (Result(torch.ones(()), torch.ones(1)), ["loss"]),
        (torch.ones(1), []),
        ((torch.ones(1),), []),
        (None, []),
    ],
)
def test_losses_among_what_a_model_returns(value: Any, names: list[str]) -> None:
    assert list(returned_losses(value)) == names
