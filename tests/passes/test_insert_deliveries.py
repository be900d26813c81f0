"""The student's calls replaced by the teacher's values."""

import random

import torch
from torch import Tensor, fx, nn

from fxkd.capture import PointName
from fxkd.passes import InsertDeliveries, InsertRecords, Prune, run
from fxkd.passes.insert_deliveries import deliver
from fxkd.passes.insert_records import records_of
from tests.passes.joint import batch, joined, outputs, shape_of, structure


class Noise:
    """Draws."""

    def draw(self, x: Tensor) -> Tensor:
        return torch.rand_like(x)

    def number(self) -> int:
        return random.randint(1, 10**6)


DRAW = PointName("MethodOutputs", f"{__name__}.Noise.draw")
NUMBER = PointName("MethodOutputs", f"{__name__}.Noise.number")


class Model(nn.Module):
    """Calls its entry, then its head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.entry = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.noise = Noise()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.entry(x).relu())


class Twice(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.entry(x) - 2 * self.entry(x + 1)


class Noisy(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.noise.draw(x)) + self.noise.number()


def delivered(student: nn.Module, teacher: nn.Module, *points: PointName) -> fx.GraphModule:
    module = joined(student, teacher, points=points, whole=points)
    names = {point.path.rpartition(".")[2]: point for point in points}
    return run(module, [InsertDeliveries(names)])


def test_insert_deliveries() -> None:
    module = delivered(Model(), Model(1), outputs("entry"))
    found = structure(module.graph)
    previous = [index for index, entry in enumerate(found) if entry[1] in ("is_grad_enabled", "_set_grad_enabled")]
    assert len(previous) == 3
    student = [entry[1] for entry in found[previous[-1] + 1 :]]
    assert student == ["deliver", "relu", "student.head", "output"]
    (node,) = (node for node in module.graph.nodes if node.target is deliver)
    assert str(node.args[0].target) == "teacher.entry"
    assert node.args[1:] == ("entry", 0)


def test_the_student_computes_with_the_teachers_value() -> None:
    student, teacher = Model(), Model(1)
    module = delivered(student, teacher, outputs("entry"))
    x = batch(5)
    assert torch.equal(module(x)["output"], student.head(teacher.entry(x).relu()))


def test_the_replaced_call_is_gone() -> None:
    module = delivered(Model(), Model(1), outputs("entry"))
    assert "student.entry" not in shape_of(module.graph)
    assert "teacher.entry" in shape_of(module.graph)


def test_first_in_first_out() -> None:
    student, teacher = Twice(), Twice(1)
    module = delivered(student, teacher, outputs("entry"))
    assert [node.args[2] for node in module.graph.nodes if node.target is deliver] == [0, 1]
    x = batch(5)
    assert torch.equal(module(x)["output"], teacher(x))


def test_what_only_the_replaced_call_needed_is_left_to_prune() -> None:
    module = run(delivered(Twice(), Twice(1), outputs("entry")), [Prune()])
    assert "student" in {node.meta.get("side") for node in module.graph.nodes}
    assert [name for name in shape_of(module.graph, "student") if name == "add"] == []


def test_a_drawn_tensor_and_a_drawn_number() -> None:
    module = delivered(Noisy(), Noisy(1), DRAW, NUMBER)
    names = shape_of(module.graph)
    assert (names.count("draw"), names.count("number"), names.count("deliver")) == (1, 1, 2)
    x = batch(5)
    torch.manual_seed(3)
    random.seed(3)
    first = module(x)["output"]
    torch.manual_seed(3)
    random.seed(3)
    factor, number = torch.rand_like(x), random.randint(1, 10**6)
    student = module.student
    assert torch.allclose(first, student.head(x * factor) + number)


def test_a_record_at_the_point_sees_what_was_delivered() -> None:
    module = delivered(Model(), Model(1), outputs("entry"))
    module = run(module, [InsertRecords({"entry": outputs("entry")}, "student")])
    (node,) = records_of(module.graph, "student", "entry")
    assert node.args[0].target is deliver


def test_the_memory_of_the_delivered_value_is_the_givers() -> None:
    class InPlace(Model):
        def forward(self, x: Tensor) -> Tensor:
            h = self.entry(x)
            h.add_(1)
            return h

    module = delivered(InPlace(), InPlace(1), outputs("entry"))
    (giver,) = (node for node in module.graph.nodes if node.target == "teacher.entry")
    writer = [node for node in module.graph.nodes if node.target == "add_"][-1]
    assert writer.meta["side"] == "student"
    assert writer.meta["mutates"] == giver.meta["storages"]


def test_nothing_to_do() -> None:
    module = joined(Model(), Model(1))
    before = str(module.graph)
    for points in ({}, {"entry": outputs("entry")}):
        _, modified = InsertDeliveries(points)(module)
        assert not modified
    assert str(module.graph) == before


def test_the_identity() -> None:
    value = object()
    assert deliver(value, "name", 0) is value
