"""Rows of the silent-failure table: models and parts of models that are compiled already."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxkd
from tests.support.hooks import Net, assert_right, batch, every_output, plain, spec_of
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def by_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.compile(model, backend="aot_eager")


def in_place(model: nn.Module) -> Callable[[Tensor], Tensor]:
    model.compile(backend="aot_eager")
    return model


@BACKENDS
@pytest.mark.parametrize("compiled", [by_function, in_place])
def test_point_named_after_a_compiled_call(compiled: Callable[[nn.Module], nn.Module], backend: str) -> None:
    """Compiled code looks at hooks when it is compiled: one that is registered later does not run, nor is it missed."""
    student, teacher = Net(0), Net(1)
    call, _ = compiled(student), compiled(teacher)(batch())
    call(batch())
    buffer, handle = every_output(student.first)
    call(batch())
    assert buffer == []
    call(batch(5))
    assert len(buffer) == 1, "another size is compiled anew, now with the hook"
    handle.remove()

    distiller = fxkd.prepare(student, teacher, spec_of(), backend=backend)
    assert_right(distiller, plain)


@BACKENDS
def test_compiled_module_as_the_student(backend: str) -> None:
    """What ``torch.compile`` gives is a model as well; its points lie under ``_orig_mod.``."""
    student, teacher = torch.compile(Net(0), backend="aot_eager"), Net(1)
    student(batch())
    distiller = fxkd.prepare(student, teacher, spec_of("_orig_mod.first", "first"), backend=backend)
    assert_right(distiller, lambda model, x: plain(getattr(model, "_orig_mod", model), x))


class WithBlock(nn.Module):
    """A model with a block that somebody compiles."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.block = Net(seed)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))


def block_by_hand(model: WithBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    feature, output = plain(model.block, x)
    return feature, nn.functional.linear(output, model.head.weight, model.head.bias)


@BACKENDS
@pytest.mark.parametrize("called", [True, False])
def test_submodule_compiled_in_place(called: bool, backend: str) -> None:
    """``model.block.compile()`` compiles one part; a hook inside of it, registered later, never runs."""
    student, teacher = WithBlock(0), WithBlock(1)
    for model in (student, teacher):
        model.block.compile(backend="aot_eager")
        if called:
            model(batch())
    if called:
        buffer, handle = every_output(student.block.first)
        student(batch())
        assert buffer == []
        handle.remove()

    distiller = fxkd.prepare(student, teacher, spec_of("block.first"), backend=backend)
    assert_right(distiller, block_by_hand)


@BACKENDS
def test_submodule_compiled_after_prepare(backend: str) -> None:
    distiller = fxkd.prepare(WithBlock(0), WithBlock(1), spec_of("block.first"), backend=backend)
    assert_right(distiller, block_by_hand)
    distiller.student.block.compile(backend="aot_eager")
    distiller.student(batch())
    assert_right(distiller, block_by_hand)


@BACKENDS
def test_the_compiled_block_is_the_point(backend: str) -> None:
    student, teacher = WithBlock(0), WithBlock(1)
    student.block.compile(backend="aot_eager")
    student(batch())
    distiller = fxkd.prepare(student, teacher, spec_of("block"), backend=backend)

    def by_hand(model: WithBlock, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = plain(model.block, x)[1]
        return feature, nn.functional.linear(feature, model.head.weight, model.head.bias)

    assert_right(distiller, by_hand)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_the_eager_backend_can_be_compiled_still() -> None:
    distiller = fxkd.prepare(Net(0), Net(1), spec_of(), backend="eager")
    compiled = torch.compile(distiller, backend="eager")
    for seed in range(3):
        wanted, found = distiller(batch(seed=seed)), compiled(batch(seed=seed))
        assert_same((wanted.loss, wanted.output), (found.loss, found.output))
