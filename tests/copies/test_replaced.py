"""Parts of a student that are replaced, wrapped, frozen or shared: the next step is that of a fresh ``prepare``."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

import fxkd
from tests.support.hooks import spec_of
from tests.support.oracle import assert_same, seed_everything

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


class Block(nn.Module):
    """A layer, an activation, a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu())


class Model(nn.Module):
    """A stem, a block, a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.block, self.fc = nn.Linear(8, 8), Block(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(x)))


class LowRank(nn.Module):
    """A layer, frozen, and a product of two small matrices beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class OtherBlock(Block):
    """Another program behind the same names."""

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).tanh()) + x


def low_rank_fc(model: Model) -> None:
    model.fc = LowRank(model.fc)


def low_rank_inner(model: Model) -> None:
    model.block.inner = LowRank(model.block.inner)


def other_block(model: Model) -> None:
    torch.manual_seed(6)
    model.block = OtherBlock()


def other_inner(model: Model) -> None:
    torch.manual_seed(6)
    model.block.inner = nn.Linear(8, 8)


def other_forward(model: Model) -> None:
    model.block.forward = lambda x: model.block.outer(model.block.inner(x)) * 2


def hooked(model: Model) -> None:
    model.block.register_forward_hook(lambda module, args, output: output * 3)


def hooked_before(model: Model) -> None:
    model.block.register_forward_pre_hook(lambda module, args: (args[0] * 3,))


def normed(model: Model) -> None:
    parametrizations.weight_norm(model.fc)


def normed_inner(model: Model) -> None:
    parametrizations.weight_norm(model.block.inner)


def module_removed(model: Model) -> None:
    model.stem = nn.Identity()


def weights_shared(model: Model) -> None:
    model.block.outer.weight = model.block.inner.weight


def hooked_model(model: Model) -> None:
    model.register_forward_hook(lambda module, args, output: output * 3)


CHANGES: list[Callable[[Model], None]] = [
    low_rank_fc, low_rank_inner, other_block, other_inner, other_forward, hooked, hooked_before, normed, normed_inner,
    module_removed, weights_shared, hooked_model,
]  # fmt: skip


def changes() -> list[Any]:
    """Every point, every change, both backends."""
    rows = product(("fc", "block", "block.inner"), CHANGES, ("graph", "eager"))
    return [pytest.param(*row, id=f"{row[0]}-{row[1].__name__}-{row[2]}") for row in rows]


def batch(size: int = 3) -> Tensor:
    return torch.randn(size, 8, generator=torch.Generator().manual_seed(size))


def stepped(distiller: fxkd.Distiller) -> dict[str, Any]:
    """Run one step; give the loss, the output and the gradients."""
    seed_everything(0)
    distiller.zero_grad()
    out = distiller(batch())
    (out.loss + out.output.square().sum()).backward()
    grads = {name: parameter.grad for name, parameter in distiller.named_parameters()}
    return {"loss": out.loss.detach(), "output": out.output.detach(), "gradients": grads}


@pytest.mark.parametrize(("point", "change", "backend"), changes())
def test_a_change_after_prepare_is_seen(point: str, change: Callable[[Model], None], backend: str) -> None:
    example = batch() if backend == "graph" else None
    distiller = fxkd.prepare(Model(), Model(1), spec_of(point), example_inputs=example, backend=backend)
    before = stepped(distiller)
    other = Model()
    change(other), change(distiller.student)
    wanted = stepped(fxkd.prepare(other, Model(1), spec_of(point), backend="eager"))
    assert_same(wanted, stepped(distiller), 1e-5)
    assert not torch.equal(before["output"], wanted["output"]) or change in (normed, normed_inner)


@BACKENDS
def test_low_rank_parts_are_trained_and_the_rest_is_not(backend: str) -> None:
    example = batch() if backend == "graph" else None
    distiller = fxkd.prepare(Model(), Model(1), spec_of("fc"), example_inputs=example, backend=backend)
    student = distiller.student
    low_rank_fc(student), low_rank_inner(student)
    stepped(distiller)
    for layer in (student.fc, student.block.inner):
        assert layer.base.weight.grad is None
        assert layer.up.weight.grad.any()


@BACKENDS
def test_a_partly_frozen_student(backend: str) -> None:
    """Before prepare or after it: what is frozen gets no gradient, the rest gets the same as without."""
    for early in (True, False):
        student, free = Model(), Model()
        if early:
            student.block.inner.requires_grad_(False)
        example = batch() if backend == "graph" else None
        distiller = fxkd.prepare(student, Model(1), spec_of("block.inner"), example_inputs=example, backend=backend)
        student.block.inner.requires_grad_(False)
        found = stepped(distiller)["gradients"]
        wanted = stepped(fxkd.prepare(free, Model(1), spec_of("block.inner"), backend="eager"))["gradients"]
        frozen = ["student.block.inner.weight", "student.block.inner.bias"]
        assert [name for name, value in found.items() if value is None] == frozen
        assert_same(wanted | dict.fromkeys(frozen), found, 1e-5)


@BACKENDS
def test_what_student_and_teacher_share_is_never_frozen(backend: str) -> None:
    """Neither a module of both nor one parameter of both; the teacher's pass gives it no gradient."""
    student, teacher = Model(), Model(1)
    teacher.block = student.block
    teacher.fc.weight = student.fc.weight
    spec = spec_of("fc")
    example = batch() if backend == "graph" else None
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=example, backend=backend)
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not teacher.stem.weight.requires_grad
    assert not teacher.fc.bias.requires_grad
    own, x = copy.deepcopy(student), batch()
    with torch.no_grad():
        target = teacher(x)
    out = distiller(x)
    out.loss.backward()
    loss = functional.mse_loss(own(x), target)
    loss.backward()
    assert_same(loss, out.loss)
    assert_same({n: p.grad for n, p in own.named_parameters()}, {n: p.grad for n, p in student.named_parameters()})


@BACKENDS
@pytest.mark.parametrize("point", ["fc", "block.inner"])
def test_parametrized_layers(point: str, backend: str) -> None:
    """Their weights are computed anew at each step, and their own parameters are trained."""

    def normed_model(seed: int) -> Model:
        model = Model(seed)
        normed(model), normed_inner(model)
        return model

    student, teacher = normed_model(0), normed_model(1)
    own, target = copy.deepcopy(student), copy.deepcopy(teacher)
    example = batch() if backend == "graph" else None
    distiller = fxkd.prepare(student, teacher, spec_of(point), example_inputs=example, backend=backend)
    assert parametrize.is_parametrized(student.fc)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (own, student)]
    for _ in range(2):
        features = []
        for model in (own, target):
            hidden = model.stem(batch())
            inner = functional.linear(hidden, weight_of(model.block.inner), model.block.inner.bias)
            block = functional.linear(inner.relu(), model.block.outer.weight, model.block.outer.bias)
            output = functional.linear(block, weight_of(model.fc), model.fc.bias)
            features.append(output if point == "fc" else inner)
        wanted = functional.mse_loss(features[0], features[1].detach())
        found = distiller(batch()).loss
        assert_same(wanted, found, 1e-5)
        for optimizer, loss in zip(optimizers, (wanted, found), strict=True):
            optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert_same(dict(own.state_dict()), dict(student.state_dict()), 1e-5)


def weight_of(layer: nn.Module) -> Tensor:
    """Compute a weight-normed weight by hand: a length times a direction."""
    length, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    return length * direction / direction.norm(dim=1, keepdim=True)


@BACKENDS
def test_a_frozen_part_that_is_trained_later(backend: str) -> None:
    student = Model()
    student.block.requires_grad_(False)
    example = batch() if backend == "graph" else None
    distiller = fxkd.prepare(student, Model(1), spec_of("fc"), example_inputs=example, backend=backend)
    stepped(distiller)
    assert student.block.inner.weight.grad is None
    student.block.requires_grad_(True)
    stepped(distiller)
    assert student.block.inner.weight.grad.any()
