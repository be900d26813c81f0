"""Rows of the silent-failure table: a point is called twice, again by another model, again in the backward, or not."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import fxkd
from fxkd.errors import CaptureError, FxkdError, SpecError
from tests.support.hooks import Net, assert_right, batch, every_output, last_output, plain, spec_of
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


class Checkpointed(Net):
    """Its first layer is computed again in the backward, to save memory."""

    def __init__(self, seed: int = 0, *, use_reentrant: bool = False) -> None:
        super().__init__(seed)
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return self.last(checkpoint(self.inside, x, use_reentrant=self.use_reentrant))

    def inside(self, x: Tensor) -> Tensor:
        return self.first(x).relu()


@BACKENDS
def test_activation_checkpointing(backend: str) -> None:
    """The recomputation calls the hook again: the buffer holds two values for one call."""
    student = Checkpointed()
    buffer, handle = every_output(student.first)
    student(batch()).sum().backward()
    assert len(buffer) == 2
    handle.remove()

    distiller = fxkd.prepare(student, Checkpointed(1), spec_of(), backend=backend, return_records=True)
    assert_right(distiller, plain)
    out = distiller(batch())
    out.loss.backward()
    assert len(out.records["student"]["point"]) == 1


def test_reentrant_checkpointing_is_refused() -> None:
    """The hook sees a value without gradients: the loss trains nothing, without a word."""
    student = Checkpointed(use_reentrant=True)
    buffer, handle = every_output(student.first)
    output = student(batch())
    loss = functional.mse_loss(buffer[0], torch.zeros(3, 8))
    assert not loss.requires_grad
    (loss + 0 * output.sum()).backward()
    assert not student.first.weight.grad.any()
    handle.remove()

    teacher = Checkpointed(1, use_reentrant=True)
    with pytest.raises(CaptureError, match=r"'first' is called inside CheckpointFunction.*use_reentrant=False"):
        fxkd.prepare(student, teacher, spec_of(), example_inputs=batch())
    with pytest.raises(CaptureError, match=r"'first' is called inside CheckpointFunction.*use_reentrant=False"):
        fxkd.prepare(student, teacher, spec_of())(batch())
    distiller = fxkd.prepare(student, teacher, spec_of(), backend="eager")
    with pytest.raises(CaptureError, match=r"'point'.*'first'.*reentrant checkpointing.*use_reentrant=False"):
        distiller(batch())
    with torch.no_grad():
        assert distiller(batch()).loss > 0
    by_hand = fxkd.prepare(student, teacher, spec_of("last"), backend="eager")
    assert_right(by_hand, lambda model, x: (plain(model, x)[1],) * 2)


@BACKENDS
@pytest.mark.parametrize("what", ["student", "distiller"])
def test_copy_that_runs_before_the_loss(what: str, backend: str) -> None:
    """A copy of a hooked model has the hook too, and writes to the same place: its value is compared."""
    student, x = Net(), batch()
    features = last_output(student.first)
    average = copy.deepcopy(student)
    with torch.no_grad():
        average.first.weight.mul_(0.5)
        student(x), average(x)
    assert_same(features["point"], functional.linear(x, average.first.weight, average.first.bias))
    assert not features["point"].requires_grad

    distiller = fxkd.prepare(Net(), Net(1), spec_of(), backend=backend)
    distiller(x)
    copied = copy.deepcopy(getattr(distiller, what, distiller))
    with torch.no_grad():
        next(copied.parameters()).mul_(0.5)
    own, teacher = copy.deepcopy(distiller.student), distiller.teachers["teacher"]
    out = distiller(x)
    with torch.no_grad():
        copied(x)
    out.loss.backward()
    wanted = functional.mse_loss(own.first(x), teacher.first(x).detach())
    wanted.backward()
    assert_same(wanted, out.loss)
    assert_same(own.first.weight.grad, distiller.student.first.weight.grad)


class Shared(Net):
    """Calls one layer twice."""

    def between(self, x: Tensor) -> Tensor:
        return self.first(x.relu())


@BACKENDS
@pytest.mark.parametrize("call", [0, 1])
def test_module_called_twice(call: int, backend: str) -> None:
    """The hook keeps the last of the two values."""
    student, x = Shared(), batch()
    features = last_output(student.first)
    student(x)
    once = functional.linear(x, student.first.weight, student.first.bias)
    assert not torch.equal(features["point"], once)

    def by_hand(model: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [functional.linear(x, model.first.weight, model.first.bias)]
        values.append(functional.linear(values[0].relu(), model.first.weight, model.first.bias))
        return values[call], functional.linear(values[1], model.last.weight, model.last.bias)

    assert_right(fxkd.prepare(Shared(), Shared(1), spec_of(record_idx=call), backend=backend), by_hand)


class OneModuleTwoNames(Net):
    """Two blocks that hold one and the same layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.again = self.first

    def between(self, x: Tensor) -> Tensor:
        return self.again(x.relu())


@BACKENDS
@pytest.mark.parametrize("name", ["first", "again"])
def test_two_names_of_one_module_are_one_point(name: str, backend: str) -> None:
    """Whichever name is asked for: calls are counted over both."""
    distiller = fxkd.prepare(
        OneModuleTwoNames(), OneModuleTwoNames(1), spec_of(name), backend=backend, return_records=True
    )
    out, student, x = distiller(batch()), distiller.student, batch()
    first = functional.linear(x, student.first.weight, student.first.bias)
    second = functional.linear(first.relu(), student.first.weight, student.first.bias)
    assert_same([first, second], out.records["student"]["point"])


class InPlace(Net):
    """Writes to what its first layer gave."""

    def between(self, x: Tensor) -> Tensor:
        return x.mul_(2).add_(1)


@BACKENDS
def test_written_to_after_the_point(backend: str) -> None:
    """The hook holds the tensor itself; when the loss reads it, it is another value."""
    student, x = InPlace(), batch()
    features = last_output(student.first)
    student(x)
    feature = functional.linear(x, student.first.weight, student.first.bias)
    assert_same(features["point"], feature * 2 + 1)
    assert not torch.equal(features["point"], feature)

    def by_hand(model: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = functional.linear(x, model.first.weight, model.first.bias)
        return feature, functional.linear(feature * 2 + 1, model.last.weight, model.last.bias)

    assert_right(fxkd.prepare(InPlace(), InPlace(1), spec_of(), backend=backend), by_hand)


class SizeBranch(Net):
    """Takes a short way for small batches, past the middle layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.middle = nn.Linear(8, 8)

    def between(self, x: Tensor) -> Tensor:
        return self.middle(x) if x.shape[0] > 4 else x - 1


def branch_by_hand(model: SizeBranch, x: Tensor) -> tuple[Tensor, Tensor]:
    feature = functional.linear(x, model.first.weight, model.first.bias)
    large = x.shape[0] > 4
    middle = functional.linear(feature, model.middle.weight, model.middle.bias) if large else feature - 1
    output = functional.linear(middle, model.last.weight, model.last.bias)
    return output, output


@BACKENDS
def test_size_branch(backend: str) -> None:
    """What is not called leaves the hook's value of the step before, which the loss takes; a trace takes one way."""
    student = SizeBranch()
    features = last_output(student.middle)
    student(batch(5))
    stale = features["point"]
    student(batch(3))
    assert features["point"] is stale, "of another batch, five rows instead of three"

    distiller = fxkd.prepare(SizeBranch(), SizeBranch(1), spec_of("last"), backend=backend)
    assert_right(distiller, branch_by_hand, batch(5), batch(3), batch(7), batch(2))
    assert len(distiller.programs) == (2 if backend == "graph" else 0)


def middle_by_hand(model: SizeBranch, x: Tensor) -> tuple[Tensor, Tensor]:
    feature = functional.linear(x, model.first.weight, model.first.bias)
    middle = functional.linear(feature, model.middle.weight, model.middle.bias)
    return middle, functional.linear(middle, model.last.weight, model.last.bias)


@pytest.mark.parametrize(("backend", "error"), [("graph", SpecError), ("eager", FxkdError)])
def test_a_point_that_is_not_called_at_this_size_is_refused(backend: str, error: type[Exception]) -> None:
    distiller = fxkd.prepare(SizeBranch(), SizeBranch(1), spec_of("middle"), backend=backend)
    assert_right(distiller, middle_by_hand, batch(5))
    with pytest.raises(error, match="middle"):
        distiller(batch(3))
    assert_right(distiller, middle_by_hand, batch(6))


@BACKENDS
def test_caller_under_no_grad(backend: str) -> None:
    """Evaluation fills the hook's buffer as well; read in training, its value has no gradient and is of old weights."""
    student, x = Net(), batch()
    buffer, _ = every_output(student.first)
    with torch.no_grad():
        student(x)
    student(x)
    loss = functional.mse_loss(buffer[0], torch.zeros(3, 8))
    assert not loss.requires_grad

    def step(distiller: fxkd.Distiller) -> Any:
        with torch.no_grad():
            out = distiller(x)
        assert not out.loss.requires_grad
        feature, output = plain(distiller.student, x)
        target, _ = plain(distiller.teachers["teacher"], x)
        assert_same((functional.mse_loss(feature, target), output), (out.loss, out.output))

    for example in (x, None):
        distiller = fxkd.prepare(Net(), Net(1), spec_of(), backend=backend, example_inputs=example)
        step(distiller)
        assert_right(distiller, plain)
        step(distiller)
        assert_right(distiller, plain)


def test_prepared_under_no_grad() -> None:
    with torch.no_grad():
        distiller = fxkd.prepare(Net(), Net(1), spec_of(), example_inputs=batch())
    assert_right(distiller, plain)
