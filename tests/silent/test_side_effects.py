"""Forwards that a graph could get wrong without a word: each gives what plain PyTorch gives."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from tests.support.oracle import assert_same, run_with_hooks, seed_everything


class Halves(nn.Module):
    """Writes to a part of what it returns, after the layer that made it is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        x[0].zero_()
        return x


class Model(nn.Module):
    """Something peculiar between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.between(self.first(x)))

    def between(self, x: Tensor) -> Tensor:
        return x


class WritesAfterPoint(Model):
    def __init__(self) -> None:
        super().__init__()
        self.block = Halves()

    def between(self, x: Tensor) -> Tensor:
        return self.block(x)


class ClampsItsWeights(Model):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.first.weight.clamp_(-0.1, 0.1)
        return super().forward(x)


class Writer(nn.Module):
    def __init__(self, box: dict[str, Tensor]) -> None:
        super().__init__()
        self.box = box

    def forward(self, x: Tensor) -> None:
        self.box["value"] = x * 2


class Reader(nn.Module):
    def __init__(self, box: dict[str, Tensor]) -> None:
        super().__init__()
        self.box = box

    def forward(self, x: Tensor) -> Tensor:
        return x + self.box["value"]


class PassesByTheSide(Model):
    def __init__(self) -> None:
        super().__init__()
        box: dict[str, Tensor] = {}
        self.writer, self.reader = Writer(box), Reader(box)

    def between(self, x: Tensor) -> Tensor:
        self.writer(x)
        return self.reader(x)


class AsksForGradients(Model):
    def between(self, x: Tensor) -> Tensor:
        return x * 2 if torch.is_grad_enabled() else x


class ScalesGradients(Model):
    def between(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(tenth)
        return x


def tenth(gradient: Tensor) -> Tensor:
    return gradient * 0.1


POINTS = {
    WritesAfterPoint: ["block", "block.layer"],
    ClampsItsWeights: ["last"],
    PassesByTheSide: ["last", "reader"],
    AsksForGradients: ["last"],
    ScalesGradients: ["last"],
}


def spec_of(points: list[str]) -> dict[str, Any]:
    recorders = {point: {"type": "ModuleOutputs", "source": point} for point in points}
    names = {f"loss_{point.replace('.', '_')}": point for point in points}
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "distill_losses": {name: {"type": "L2Loss"} for name in names},
        "loss_forward_mappings": {
            name: {
                "s_feature": {"recorder": point, "from_student": True},
                "t_feature": {"recorder": point, "from_student": False},
            }
            for name, point in names.items()
        },
    }


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", POINTS, ids=lambda kind: kind.__name__)
def test_equals_hooks(kind: type[Model], grad: bool, backend: str) -> None:
    torch.manual_seed(0)
    student, teacher = kind(), kind()
    own, own_teacher, spec = copy.deepcopy(student), copy.deepcopy(teacher), spec_of(POINTS[kind])
    example = torch.randn(3, 8) if backend == "graph" else None
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=example, backend=backend)
    for batch in (3, 5):
        x = torch.randn(batch, 8)
        with torch.set_grad_enabled(grad):
            seed_everything(1)
            expected = run_with_hooks(own, own_teacher, spec, (x,), {}, {}, distiller.losses)
            seed_everything(1)
            out = distiller(x)
        assert_same((expected.loss, expected.output), (out.loss, out.output))
        if grad:
            expected.loss.backward()
            out.loss.backward()
            for wanted, found in zip(own.parameters(), student.parameters(), strict=True):
                assert_same(wanted.grad, found.grad)


def test_a_delivery_gives_the_value_at_its_point() -> None:
    """The teacher writes to what it has delivered, before the student takes it."""

    class Mixes(Model):
        def between(self, x: Tensor) -> Tensor:
            mixed = mix(x)
            return mixed.add_(1)

    torch.manual_seed(0)
    student, teacher = Mixes(), Mixes()
    spec = spec_of(["last"]) | {
        "distill_deliveries": {"mix": {"type": "FunctionOutputs", "func_path": f"{__name__}.mix", "max_keep_data": 1}}
    }
    x = torch.randn(3, 8)
    wanted = student.last(teacher.first(x) * 2 + 1)
    for backend in ("graph", "eager"):
        distiller = fxkd.prepare(copy.deepcopy(student), copy.deepcopy(teacher), spec, backend=backend)
        assert_same(wanted, distiller(x).output)


def mix(x: Tensor) -> Tensor:
    return x * 2
