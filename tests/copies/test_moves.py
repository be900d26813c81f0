"""Moves of a distiller to other types and devices, and other tensors put in the place of its weights."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxkd
from tests.support.hooks import Net, Values, assert_right, batch, plain, spec_of
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


def prepared(backend: str = "graph", **options: Any) -> fxkd.Distiller:
    example = batch() if backend == "graph" else None
    return fxkd.prepare(Net(0), Net(1), spec_of(), example_inputs=example, backend=backend, **options)


def all_tensors(distiller: fxkd.Distiller) -> list[Tensor]:
    modules = [distiller, *distiller.teachers.values()]
    return [tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]]


TYPES: dict[str, tuple[Callable[[fxkd.Distiller], Any], torch.dtype]] = {
    "to": (lambda distiller: distiller.to(torch.float64), torch.float64),
    "double": (lambda distiller: distiller.double(), torch.float64),
    "half": (lambda distiller: distiller.half(), torch.float16),
    "bfloat16": (lambda distiller: distiller.bfloat16(), torch.bfloat16),
}


@BACKENDS
@pytest.mark.parametrize("name", TYPES)
def test_another_type(name: str, backend: str) -> None:
    distiller = prepared(backend)
    assert_right(distiller, plain)
    move, dtype = TYPES[name]
    assert move(distiller) is distiller
    assert {tensor.dtype for tensor in all_tensors(distiller)} == {dtype}
    assert not any(p.requires_grad for p in distiller.teachers["teacher"].parameters())
    assert_right(distiller, plain, batch().to(dtype), batch(5).to(dtype), rtol=1e-2 if dtype.itemsize < 4 else 1e-6)
    assert {p.grad.dtype for p in distiller.parameters()} == {dtype}
    distiller.float()
    assert_right(distiller, plain)


@BACKENDS
def test_a_move_of_the_student_alone_is_seen(backend: str) -> None:
    """The teacher stays as it was, which the student's types do not fit: an error, never other numbers."""
    distiller = prepared(backend)
    distiller.student.double()
    with pytest.raises(Exception, match=r"dtype|double|Double"):
        distiller(batch().double())
    distiller.teachers["teacher"].double()
    assert_right(distiller, plain, batch().double())


@BACKENDS
def test_by_way_of_meta(backend: str) -> None:
    """Weights go by way of the state dict; a teacher is not in it and is loaded by itself."""
    distiller, twin = prepared(backend), prepared(backend)
    assert_right(distiller, plain)
    state, of_teacher = twin.state_dict(), twin.teachers["teacher"].state_dict()
    distiller.to("meta")
    assert all(tensor.is_meta for tensor in all_tensors(distiller))
    out = distiller(batch().to("meta"))
    assert out.loss.is_meta
    assert out.output.shape == (3, 8)
    assert distiller.to_empty(device="cpu") is distiller
    assert not any(tensor.is_meta for tensor in all_tensors(distiller))
    distiller.load_state_dict(state)
    distiller.teachers["teacher"].load_state_dict(of_teacher)
    assert_same(dict(twin.state_dict()), dict(distiller.state_dict()))
    assert_right(distiller, plain)
    assert not any(p.requires_grad for p in distiller.teachers["teacher"].parameters())


@BACKENDS
def test_to_empty_leaves_a_teacher_that_has_values(backend: str) -> None:
    """No state dict brings them back."""
    distiller = prepared(backend)
    kept, state = copy.deepcopy(distiller.teachers["teacher"].state_dict()), copy.deepcopy(distiller.state_dict())
    distiller.to_empty(device="cpu")
    distiller.load_state_dict(state)
    assert_same(dict(kept), dict(distiller.teachers["teacher"].state_dict()))
    assert_right(distiller, plain)


def test_a_state_dict_and_back() -> None:
    """By way of a file, with the safe loader."""
    distiller, other = prepared(), fxkd.prepare(Net(5), Net(1), spec_of(), example_inputs=batch())
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(distiller(batch()).loss, other(batch()).loss)


@pytest.mark.usefixtures("fresh_dynamo")
@BACKENDS
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_assigned_after_prepare_are_trained(backend: str, compiled: bool) -> None:
    """The parameters are other objects then: gradients go to them, and to no others."""
    options = {"compile": {"backend": "aot_eager"}} if compiled and backend == "graph" else {}
    distiller = prepared(backend, **options)
    distiller(batch()).loss.backward()
    distiller.zero_grad()
    before = dict(distiller.student.named_parameters())
    other = {f"student.{name}": value for name, value in Net(7).state_dict().items()}
    distiller.load_state_dict(other, assign=True)
    after = dict(distiller.student.named_parameters())
    assert all(after[name] is not before[name] for name in before)
    assert_right(distiller, plain, rtol=1e-5)
    assert all(parameter.grad is None for parameter in before.values())
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    kept = copy.deepcopy(distiller.state_dict())
    distiller(batch()).loss.backward()
    optimizer.step()
    assert not torch.equal(kept["student.first.weight"], distiller.student.first.weight)
    assert_right(distiller, plain, rtol=1e-5)


class Reads(Net):
    """Uses its layers' weights itself."""

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.first, self.last
        return functional.linear(functional.linear(x, first.weight, first.bias).relu(), last.weight, last.bias)


@BACKENDS
def test_assigned_weights_that_a_forward_reads_and_a_recorder_names(backend: str) -> None:
    spec = spec_of()
    recorder = {"point": {"type": "Parameter", "source": "first.weight"}}
    spec |= {"student_recorders": recorder, "teacher_recorders": recorder}

    def by_hand(model: Any, x: Tensor) -> Values:
        return model.first.weight, plain(model, x)[1]

    distiller = fxkd.prepare(Reads(0), Reads(1), spec, backend=backend)
    assert_right(distiller, by_hand)
    distiller.load_state_dict({f"student.{name}": v for name, v in Net(7).state_dict().items()}, assign=True)
    distiller.teachers["teacher"].load_state_dict(Net(8).state_dict(), assign=True)
    assert_right(distiller, by_hand)


TABLE = torch.linspace(-1, 1, 8)


class ReadsTable(Net):
    """Uses a tensor that was made when its file was imported."""

    def between(self, x: Tensor) -> Tensor:
        return x * TABLE.to(x)


class AddsTable(Net):
    """Uses the tensor as it is: torch's own promotion of types applies."""

    def between(self, x: Tensor) -> Tensor:
        return x * TABLE


def constants(distiller: fxkd.Distiller) -> dict[str, Tensor]:
    return {k: v for k, v in distiller.graph_module.named_buffers() if "_constants." in k}


@pytest.mark.parametrize("model", [ReadsTable, AddsTable])
def test_lifted_constants(model: type[Net]) -> None:
    """They are buffers of the graph, in no state dict, and a move makes them anew from what the forward reads."""

    def by_hand(model: Any, x: Tensor) -> Values:
        feature = plain(model, x)[0]
        return feature, functional.linear(feature * TABLE.to(x), model.last.weight, model.last.bias)

    distiller = fxkd.prepare(model(0), model(1), spec_of(), example_inputs=batch())
    assert [tuple(value.shape) for value in constants(distiller).values()] == [(8,)]
    assert set(distiller.state_dict()) == {f"student.{name}" for name in Net().state_dict()}
    assert not [name for name in distiller.graph_module.state_dict() if "constant" in name]
    assert_right(distiller, by_hand)
    distiller.double()
    assert_right(distiller, by_hand, batch().double())
    copied = copy.deepcopy(distiller)
    assert_right(copied, by_hand, batch().double())
    assert TABLE.dtype == torch.float32


def test_lifted_constants_on_meta() -> None:
    distiller = fxkd.prepare(ReadsTable(0), ReadsTable(1), spec_of(), example_inputs=batch()).to("meta")
    assert distiller(batch().to("meta")).output.shape == (3, 8)
    assert not TABLE.is_meta


@BACKENDS
def test_channels_last(backend: str) -> None:
    """Another order of the memory of images and of weights gives the same numbers."""
    student, teacher = images(0), images(1)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    example = x if backend == "graph" else None
    distiller = fxkd.prepare(student, teacher, spec_of("0"), example_inputs=example, backend=backend)
    wanted = distiller(x)
    last = torch.channels_last
    assert_same((wanted.loss, wanted.output), values(distiller(x.to(memory_format=last))), 1e-5)
    distiller.to(memory_format=last)
    assert student[0].weight.is_contiguous(memory_format=last)
    assert teacher[0].weight.is_contiguous(memory_format=last)
    for given in (x, x.to(memory_format=last)):
        out = distiller(given)
        assert_same((wanted.loss, wanted.output), values(out), 1e-5)
        out.loss.backward()
        assert student[0].weight.grad.any()


def images(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(64, 5)).eval()


def values(out: Any) -> tuple[Tensor, Tensor]:
    return out.loss, out.output


class Views(nn.Module):
    """Asks for a view that images in channels-last order do not have."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(x.shape[0], -1))


class Strides(Views):
    """Goes another way for another order of the memory."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2 if x.stride(1) == 1 else x
        return self.fc(self.conv(x).flatten(1))


class Contiguous(Views):
    """The same, and asks in another way."""

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.is_contiguous() else x + 1
        x = x * 3 if x.is_contiguous(memory_format=torch.channels_last) else x
        return self.fc(self.conv(x).flatten(1))


@BACKENDS
def test_a_view_that_channels_last_does_not_have(backend: str) -> None:
    x = torch.randn(2, 3, 6, 6)
    distiller = fxkd.prepare(Views(0), Views(1), spec_of("conv"), example_inputs=x, backend=backend)
    distiller(x)
    other = x.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        copy.deepcopy(distiller.student)(other)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        distiller(other)


@BACKENDS
@pytest.mark.parametrize("model", [Strides, Contiguous])
def test_a_way_that_depends_on_the_order_of_memory(model: type[Views], backend: str) -> None:
    x = torch.randn(2, 3, 6, 6)
    distiller = fxkd.prepare(model(0), model(1), spec_of("conv"), example_inputs=x, backend=backend)
    for given in (x, x.to(memory_format=torch.channels_last), x):
        assert_same(distiller.student(given), distiller(given).output, 1e-5)


class AsksForGradients(Net):
    """Goes another way for an input, or a weight, that wants gradients."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2 if x.requires_grad else x
        x = x + 1 if self.last.weight.requires_grad else x
        return super().forward(x)


@BACKENDS
def test_a_way_that_depends_on_who_wants_gradients(backend: str) -> None:
    distiller = fxkd.prepare(
        AsksForGradients(0), AsksForGradients(1), spec_of(), example_inputs=batch(), backend=backend
    )
    for wanted in (False, True, False):
        x = batch().requires_grad_(wanted)
        for trained in (True, False, True):
            distiller.student.last.weight.requires_grad_(trained)
            assert_same(distiller.student(x), distiller(x).output)
