"""One graph for train and eval mode where they are equal or differ in constants; another where they do not."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxkd
from fxkd import Distiller
from fxkd.modes import in_training
from tests.support.oracle import assert_same

SPEC = {"pairs": [{"student": "first", "teacher": "first", "loss": {"type": "L2Loss"}}]}


class Plain(nn.Module):
    """Behaves by mode only inside modules that stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.first(x)))


class Constants(Plain):
    """Gives its mode, and a number that goes by it, to a function."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.norm(self.first(x)), 0.4 if self.training else 0.0, self.training)


class Branches(Plain):
    """Does something else in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return x * torch.rand_like(x) if self.training else x


class Frozen(nn.Module):
    """A model whose inner part is opened, as it holds the point, and may be in a mode of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = Constants(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.last(self.inner(x)), 0.4, self.training)


def prepared(student: nn.Module, point: str = "first") -> Distiller:
    spec = {"pairs": [{"student": point, "teacher": point, "loss": {"type": "L2Loss"}}]}
    return fxkd.prepare(student, copy.deepcopy(student), spec, example_inputs=torch.randn(4, 6))


def assert_like_student(distiller: Distiller, batch: Tensor) -> None:
    """Compare with the student alone: output, gradients and running statistics, from the same random state."""
    plain = copy.deepcopy(distiller.student)
    torch.manual_seed(0)
    expected = plain(batch)
    torch.manual_seed(0)
    out = distiller(batch)
    assert_same(out.output, expected)
    assert_same(dict(distiller.student.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize(("student", "programs"), [(Plain, 1), (Constants, 1), (Branches, 2)])
def test_modes_share_a_graph_where_it_is_one(student: type[Plain], programs: int) -> None:
    distiller = prepared(student())
    for mode in (True, False, True):
        distiller.train(mode)
        assert_like_student(distiller, torch.randn(5, 6))
    assert len(distiller.programs) == programs
    assert sum(len(program.situations) for program in distiller.programs) == 2


def test_the_flag_is_read_from_the_innermost_module() -> None:
    distiller = prepared(Frozen(), "inner.first")
    for _ in range(2):
        distiller.eval()
        assert_like_student(distiller, torch.randn(5, 6))
        distiller.train()
        assert_like_student(distiller, torch.randn(5, 6))
    chosen = [node for node in distiller.graph_module.graph.nodes if node.target is in_training]
    assert [node.args[0].target for node in chosen] == ["student.inner", "student.inner", "student"]
    assert len(distiller.programs) == 1


def test_a_frozen_part_keeps_its_mode() -> None:
    student = Frozen()
    student.inner.eval()
    distiller = prepared(student, "inner.first")
    assert_like_student(distiller, torch.randn(5, 6))
    chosen = [node for node in distiller.graph_module.graph.nodes if node.target is in_training]
    assert not chosen
    student.inner.train()
    assert_like_student(distiller, torch.randn(5, 6))
    student.eval()
    assert_like_student(distiller, torch.randn(5, 6))


def test_one_graph_serves_evaluation_without_gradients() -> None:
    distiller = prepared(Plain())
    distiller.eval()
    with torch.no_grad():
        assert_like_student(distiller, torch.randn(5, 6))
    distiller.train()
    assert distiller(torch.randn(5, 6)).loss.requires_grad
    assert len(distiller.programs) == 1


def test_a_merged_graph_compiles() -> None:
    distiller = prepared(Constants())
    distiller.eval()
    distiller(torch.randn(5, 6))
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    batch = torch.randn(5, 6)
    assert_same(compiled(batch).output, distiller.student(batch))
    distiller.train()
    assert (compiled(batch).output == 0).any()


def test_the_teacher_stays_in_eval_mode() -> None:
    distiller = prepared(Constants())
    assert distiller.train() is distiller
    assert not any(module.training for module in distiller.teachers["teacher"].modules())
    assert distiller.eval() is distiller
