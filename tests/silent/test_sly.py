"""Forwards that keep random generators of their own, seed torch, change their layers, or look things up by size."""

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError
from tests.support.oracle import assert_same

SPEC = {"pairs": [{"student": "first", "teacher": "first", "loss": {"type": "L2Loss"}}]}
MODULE_WIDE = random.Random(5)


class Net(nn.Module):
    def __init__(self, between: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(8, 8), nn.Dropout(0.9), nn.Linear(8, 8)
        self.between, self.table = between, [1.0, 2.0, 3.0, 4.0]
        self.python, self.numpy = random.Random(3), np.random.default_rng(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)))


def prepared(between: Callable[[Net, Tensor], Tensor], **options: object) -> fxkd.Distiller:
    student = Net(between)
    return fxkd.prepare(student, copy.deepcopy(student), SPEC, example_inputs=batch(2), **options)


def batch(size: int) -> Tensor:
    return torch.randn(size, 8, generator=torch.Generator().manual_seed(size))


DRAWS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "random.Random": lambda net, x: x * net.python.random(),
    "numpy's Generator": lambda net, x: x + float(net.numpy.normal()),
    "one of the Python module": lambda net, x: x * MODULE_WIDE.random(),
}


@pytest.mark.parametrize("between", DRAWS.values(), ids=list(DRAWS))
def test_own_generators_are_not_frozen(between: Callable[[Net, Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"random numbers gives at .*test_sly\.py.*backend='eager'"):
        prepared(between)
    distiller = prepared(between, backend="eager")
    first, second = distiller(batch(3)), distiller(batch(3))
    assert not torch.equal(first.output, second.output)


def test_own_generators_are_left_as_they_were() -> None:
    student = Net(DRAWS["random.Random"])
    states = student.python.getstate(), copy.deepcopy(student.numpy.bit_generator.state), MODULE_WIDE.getstate()
    with pytest.raises(CaptureError):
        fxkd.prepare(student, copy.deepcopy(student), SPEC, example_inputs=batch(2))
    assert (student.python.getstate(), student.numpy.bit_generator.state, MODULE_WIDE.getstate()) == states


def seeded(net: Net, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return x * torch.rand_like(x)


def forked(net: Net, x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return x * torch.rand_like(x)


@pytest.mark.parametrize("between", [seeded, forked])
def test_seeding_is_refused(between: Callable[[Net, Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"torch\.random\.(manual_seed|fork_rng) is called at .*test_sly\.py"):
        prepared(between)


def without_dropout(net: Net, x: Tensor) -> Tensor:
    kept, net.drop.p = net.drop.p, 0.0
    x = net.drop(x)
    net.drop.p = kept
    return x


def in_eval_mode(net: Net, x: Tensor) -> Tensor:
    net.drop.eval()
    x = net.drop(x)
    net.drop.train()
    return x


def with_other_weights(net: Net, x: Tensor) -> Tensor:
    weights = {"weight": net.first.weight * 2, "bias": net.first.bias + 1}
    return torch.func.functional_call(net.last, weights, (x,))


@pytest.mark.parametrize("between", [without_dropout, in_eval_mode, with_other_weights])
def test_layers_that_a_forward_changes(between: Callable[[Net, Tensor], Tensor]) -> None:
    distiller = prepared(between)
    plain = copy.deepcopy(distiller.student)
    for size in (2, 5):
        expected = plain(batch(size))
        out = distiller(batch(size))
        assert_same(expected, out.output)
        distiller.zero_grad(), plain.zero_grad()
        expected.sum().backward()
        out.output.sum().backward()
        assert_same([p.grad for p in plain.parameters()], [p.grad for p in distiller.student.parameters()])


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: x * net.table[x.shape[0] // 16],
        lambda net, x: x * {0: 1.0, 1: 2.0}.get(x.shape[0] // 32, 3.0),
        lambda net, x: x * len("x" * (x.shape[0] // 8)),
    ],
)
def test_look_ups_by_size(between: Callable[[Net, Tensor], Tensor]) -> None:
    distiller = prepared(between)
    for size in (2, 5, 17, 33, 40, 2):
        assert_same(distiller.student(batch(size)), distiller(batch(size)).output)
