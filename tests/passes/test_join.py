"""Two graphs in one, on the real modules."""

import pytest
import torch
from torch import Tensor, nn

from fxkd.passes.join import Side, join
from tests.passes.joint import batch, joined, outputs, shape_of
from tests.support.oracle import assert_same


class Model(nn.Module):
    def __init__(self, width: int = 4, fails: bool = False) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.fc = nn.Linear(4, width)
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu()


def test_the_modules_are_the_same_objects() -> None:
    student, teacher = Model(), Model(6)
    module = joined(student, teacher)
    assert module.student is student
    assert module.teacher is teacher


def test_a_replaced_part_is_seen() -> None:
    student = Model()
    module = joined(student, Model(6))
    student.fc = nn.Linear(4, 3)
    assert_same(student(batch()), module(batch())["output"])


def test_the_teacher_runs_without_gradients_between_a_pair() -> None:
    module = joined(Model(), Model(6))
    assert shape_of(module.graph) == [
        "x", "is_grad_enabled", "_set_grad_enabled", "teacher.fc", "relu", "_set_grad_enabled", "student.fc", "relu",
        "output",
    ]  # fmt: skip
    pair = [node for node in module.graph.nodes if node.target is torch._C._set_grad_enabled]
    assert pair[0].args == (False,)
    assert pair[1].args[0].target is torch.is_grad_enabled


@pytest.mark.parametrize("grad", [True, False])
def test_the_callers_grad_mode_is_put_back_and_counts(grad: bool) -> None:
    module = joined(Model(), Model(6))
    with torch.set_grad_enabled(grad):
        found = module(batch())["output"]
        assert torch.is_grad_enabled() is grad
    assert found.requires_grad is grad


def test_gradients_reach_the_student_alone() -> None:
    student, teacher = Model(), Model(6)
    joined(student, teacher)(batch())["output"].sum().backward()
    assert student.fc.weight.grad is not None
    assert teacher.fc.weight.grad is None


def test_the_same_placeholder_is_one_and_further_inputs_come_last() -> None:
    module = joined(Model(), Model(6), extra=("labels",))
    names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    assert names == ["x", "labels"]
    module(batch(), torch.zeros(2))


def test_every_node_knows_its_side() -> None:
    module = joined(Model(), Model(6), points=[outputs("fc")])
    sides = {str(node.target): node.meta.get("side") for node in module.graph.nodes if node.op == "call_module"}
    assert sides == {"teacher.fc": "teacher", "student.fc": "student"}


def test_an_input_is_the_same_memory_on_both_sides() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.add_(1)
            return x

    module = joined(InPlace(), InPlace())
    (x,) = (node for node in module.graph.nodes if node.op == "placeholder")
    writers = [node for node in module.graph.nodes if node.target == "add_"]
    assert [node.meta["mutates"] for node in writers] == [x.meta["storages"]] * 2
    given = batch()
    assert torch.equal(module(given)["output"], batch() + 2)


def test_parameters_are_not_doubled() -> None:
    student, teacher = Model(), Model(6)
    module = joined(student, teacher)
    assert {id(p) for p in module.parameters()} == {id(p) for p in [*student.parameters(), *teacher.parameters()]}


def test_one_graph_alone() -> None:
    found = joined(Model())
    assert shape_of(found.graph) == ["x", "student.fc", "relu", "output"]


def test_join_needs_no_capture() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())).graph
    held = nn.Module()
    held.add_module("0", nn.ReLU())
    for node in graph.nodes:
        if node.op == "call_module":
            node.target = f"student.{node.target}"
    module = join([Side(name="student", graph=graph, grad=True)], {"student": held})
    assert_same(batch().relu(), module(batch())["output"])
