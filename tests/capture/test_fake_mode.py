"""What is shaped at once without values looks like what is computed on values, in all that a program can see."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fxkd.capture.fake_mode import SHAPED, Mode
from fxkd.capture.twins import fake_of, fake_twins

CASES: dict[str, tuple[nn.Module, Tensor]] = {
    "batch norm": (nn.BatchNorm2d(3), torch.randn(2, 3, 4, 5)),
    "rows": (nn.BatchNorm1d(3), torch.randn(4, 3)),
    "sequences": (nn.BatchNorm1d(3), torch.randn(4, 3, 7)),
    "without weights": (nn.BatchNorm2d(3, affine=False), torch.randn(2, 3, 4, 5)),
    "without statistics": (nn.BatchNorm2d(3, track_running_stats=False), torch.randn(2, 3, 4, 5)),
    "channels last": (nn.BatchNorm2d(3), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    "transposed": (nn.BatchNorm1d(3), torch.randn(4, 7, 3).transpose(1, 2)),
    "one pixel": (nn.BatchNorm2d(3), torch.randn(4, 3, 1, 1)),
    "double": (nn.BatchNorm2d(3).double(), torch.randn(2, 3, 4, 5).double()),
    "half": (nn.BatchNorm2d(3), torch.randn(2, 3, 4, 5).bfloat16()),
    "layer norm": (nn.LayerNorm(3), torch.randn(2, 4, 3)),
    "two dimensions": (nn.LayerNorm((4, 3)), torch.randn(2, 4, 3)),
    "layer norm without weights": (nn.LayerNorm(3, elementwise_affine=False), torch.randn(2, 4, 3)),
    "layer norm of columns": (nn.LayerNorm(4), torch.randn(2, 4, 3).transpose(1, 2)),
    "no rows": (nn.LayerNorm(3), torch.randn(0, 3)),
}


class AnyRows(nn.Module):
    """A batch norm of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.batch_norm(x, None, None, training=True)


def without_values(norm: nn.Module, x: Tensor) -> Tensor:
    mode = Mode()
    with fake_twins(norm, lambda tensor: fake_of(mode, tensor)), mode:
        value: Tensor = norm(fake_of(mode, x))
    assert isinstance(value, FakeTensor)
    return value


def seen(value: Tensor) -> tuple[Any, ...]:
    function = value.grad_fn.name() if value.grad_fn is not None else None
    return value.shape, value.stride(), value.dtype, value.device, value.requires_grad, value.is_leaf, function


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_norm_without_values(name: str, training: bool, grad: bool) -> None:
    norm, x = CASES[name]
    norm.train(training)
    with torch.set_grad_enabled(grad):
        assert seen(without_values(norm, x)) == seen(norm(x))


@pytest.mark.parametrize("kind", ["batch", "layer"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("order", [order for count in (2, 3, 4, 5) for order in permutations(range(count))])
def test_a_norm_of_any_order_of_memory(order: tuple[int, ...], step: int, kind: str) -> None:
    sizes = (4, 3, 5, 6, 2)
    held = torch.randn([step * sizes[dim] for dim in order])[tuple(slice(None, None, step) for _ in order)]
    x = held.permute([order.index(dim) for dim in range(len(order))])
    norm = AnyRows() if kind == "batch" else nn.LayerNorm(x.shape[-1])
    assert seen(without_values(norm, x)) == seen(norm(x))


A, B, C, ROW = torch.randn(4, 3), torch.randn(3, 5), torch.randn(4, 3), torch.randn(5)
CALLS: dict[str, tuple[Any, ...]] = {
    "addmm": (torch.addmm, ROW, A, B),
    "addmm of a matrix": (torch.addmm, torch.randn(4, 5), A, B),
    "addmm of a column": (torch.addmm, torch.randn(4, 1), A, B),
    "addmm of columns": (torch.addmm, ROW, C.t().t(), torch.randn(5, 3).t()),
    "mm": (torch.mm, A, B),
    "mm of columns": (torch.mm, torch.randn(3, 4).t(), B),
    "mm of nothing": (torch.mm, torch.randn(0, 3), B),
    "bmm": (torch.bmm, torch.randn(2, 4, 3), torch.randn(2, 3, 5)),
    "bmm of columns": (torch.bmm, torch.randn(2, 3, 4).mT, torch.randn(2, 5, 3).mT),
    "linear": (nn.functional.linear, torch.randn(2, 4, 3), torch.randn(5, 3), ROW),
    "linear without bias": (nn.functional.linear, torch.randn(2, 4, 3), torch.randn(5, 3)),
    "linear of one row": (nn.functional.linear, torch.randn(3), torch.randn(5, 3), ROW),
    "attention": (nn.functional.scaled_dot_product_attention, *(torch.randn(2, 2, 4, 3) for _ in range(3))),
    "relu": (torch.relu, A),
    "relu of columns": (torch.relu, B.t()),
    "relu of rows apart": (torch.relu, torch.randn(8, 3)[::2]),
    "relu of channels last": (torch.relu, torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    "gelu": (nn.functional.gelu, A),
    "silu": (nn.functional.silu, A),
    "sigmoid": (torch.sigmoid, A),
    "tanh": (torch.tanh, A),
    "a number": (torch.tanh, torch.randn(())),
    "half": (torch.sigmoid, A.bfloat16()),
    "whole numbers": (torch.sigmoid, torch.arange(3)),
    "add": (torch.add, A, C),
    "add to all rows": (torch.add, A, torch.randn(3)),
    "add a column": (torch.add, torch.randn(3, 1), torch.randn(3)),
    "add a number": (torch.add, A, 1),
    "add of two types": (torch.add, A, C.double()),
    "add whole numbers": (torch.add, torch.arange(3), 0.5),
    "add a complex number": (torch.add, A, 1j),
    "mul": (torch.mul, A, C),
    "mul with columns": (torch.mul, A, torch.randn(3, 4).t()),
    "mul by a number": (torch.mul, A, 0.5),
    "mul by truths": (torch.mul, A, C > 0),
}


class Call(nn.Module):
    """Calls a function on its parameters."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function, *given = CALLS[name]
        self.given = nn.ParameterList(
            nn.Parameter(one, requires_grad=one.is_floating_point()) if isinstance(one, Tensor) else one
            for one in given
        )

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.function(*self.given)
        return value


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_values(name: str, grad: bool, autocast: bool) -> None:
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert seen(without_values(Call(name), A)) == seen(Call(name)(A))


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (nn.BatchNorm2d(4), torch.randn(2, 3, 4, 5)),
        (nn.LayerNorm(4), torch.randn(2, 3)),
        (nn.Linear(4, 2), torch.randn(2, 3)),
        (nn.Linear(4, 2, bias=False), torch.randn(2, 3)),
    ],
    ids=["batch norm", "layer norm", "linear", "linear without bias"],
)
def test_what_does_not_fit_is_an_error(norm: nn.Module, x: Tensor) -> None:
    with pytest.raises(RuntimeError):
        norm(x)
    with pytest.raises(RuntimeError):
        without_values(norm, x)


def test_they_are_shaped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shaped = list[Any]()
    for function, shape in list(SHAPED.items()):
        monkeypatch.setitem(SHAPED, function, lambda *args, shape=shape: shaped.append(shape(*args)) or shaped[-1])
    without_values(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.LayerNorm(3), nn.ReLU()), torch.randn(4, 3))
    assert [value is not None for value in shaped] == [True, True, True, True]


def test_the_same_is_kept_for_the_backward() -> None:
    x, held = torch.randn(4, 3, 7), [torch.rand(3) for _ in range(4)]
    for training in (False, True):
        args = (x, *held, training, 0.1, 1e-5)
        mode = Mode()
        with mode:
            fakes = torch.ops.aten.native_batch_norm.default(*(fake_of(mode, t) for t in args[:5]), *args[5:])
        values = torch.ops.aten.native_batch_norm.default(*args)
        assert [(v.shape, v.dtype) for v in fakes] == [(v.shape, v.dtype) for v in values]
    shape, weights = [3, 7], (torch.rand(3, 7), torch.rand(3, 7))
    mode = Mode()
    with mode:
        fakes = torch.ops.aten.native_layer_norm.default(
            fake_of(mode, x), shape, *(fake_of(mode, w) for w in weights), 1e-5
        )
    values = torch.ops.aten.native_layer_norm.default(x, shape, *weights, 1e-5)
    assert [(v.shape, v.dtype) for v in fakes] == [(v.shape, v.dtype) for v in values]


def test_numbers_that_are_known_stay_known() -> None:
    with Mode():
        value = torch.tensor(2.0) * torch.tensor(3.0) + torch.tensor(1.0)
        assert float(value) == 7.0
