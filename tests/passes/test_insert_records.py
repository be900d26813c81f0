"""Records behind the calls of points."""

import torch
from torch import Tensor, fx, nn

from fxkd.capture import PointName
from fxkd.passes import InsertRecords, run
from fxkd.passes.insert_records import record, records_of
from tests.passes.joint import batch, joined, outputs, structure

fx.wrap("record")


class Before(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x).relu()).relu()


class After(Before):
    def forward(self, x: Tensor) -> Tensor:
        first = self.fc(x)
        record(first, "student.feat", 0)
        second = self.fc(first.relu())
        record(second, "student.feat", 1)
        return second.relu()


class Joint(nn.Module):
    """The joint graph of a student alone, by hand."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"output": type(self.student).forward(self.student, x)}


def expected(student: nn.Module) -> fx.Graph:
    return fx.symbolic_trace(Joint(student)).graph


def test_insert_records() -> None:
    before = joined(Before(), points=[outputs("fc")])
    assert structure(before.graph) == structure(expected(Before()))
    rewritten = run(before, [InsertRecords({"feat": outputs("fc")}, "student")])
    assert structure(rewritten.graph) == structure(expected(After()))


def test_values_are_unchanged() -> None:
    student = Before()
    rewritten = run(joined(student, points=[outputs("fc")]), [InsertRecords({"feat": outputs("fc")}, "student")])
    assert torch.equal(rewritten(batch(5))["output"], student(batch(5)))


def test_records_are_found_in_call_order() -> None:
    rewritten = run(joined(Before(), points=[outputs("fc")]), [InsertRecords({"feat": outputs("fc")}, "student")])
    assert [node.args[2] for node in records_of(rewritten.graph, "student", "feat")] == [0, 1]
    assert records_of(rewritten.graph, "teacher", "feat") == []
    assert records_of(rewritten.graph, "student", "fea") == []


def test_each_side_has_its_own() -> None:
    module = joined(Before(), Before(), points=[outputs("fc")])
    rewritten = run(module, [InsertRecords({"feat": outputs("fc")}, "teacher")])
    assert len(records_of(rewritten.graph, "teacher", "feat")) == 2
    assert records_of(rewritten.graph, "student", "feat") == []


def test_two_recorders_of_one_point() -> None:
    points = {"a": outputs("fc"), "b": outputs("fc")}
    rewritten = run(joined(Before(), points=[outputs("fc")]), [InsertRecords(points, "student")])
    assert [len(records_of(rewritten.graph, "student", name)) for name in "ab"] == [2, 2]
    rewritten(batch(3))


def test_a_record_of_what_a_call_was_given() -> None:
    point = PointName("ModuleInputs", "fc")
    rewritten = run(joined(Before(), points=[point]), [InsertRecords({"given": point}, "student")])
    first, second = records_of(rewritten.graph, "student", "given")
    assert first.meta["val"][0].shape == second.meta["val"][0].shape == (2, 4)


def test_nothing_to_do() -> None:
    module = joined(Before())
    before = str(module.graph)
    for points in ({}, {"feat": outputs("fc")}):  # no recorders; a point that is not in the graph
        _, modified = InsertRecords(points, "student")(module)
        assert not modified
    assert str(module.graph) == before
