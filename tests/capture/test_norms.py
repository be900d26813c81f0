"""What a norm gives without values looks like what it gives on values, in all that a program can see."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fxkd.capture.norms import NORMS, Mode
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


class Rows(nn.Module):
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


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("order", [order for count in (2, 3, 4, 5) for order in permutations(range(count))])
def test_a_batch_norm_of_any_order_of_memory(order: tuple[int, ...], step: int) -> None:
    sizes = (4, 3, 5, 6, 2)
    held = torch.randn([step * sizes[dim] for dim in order])[tuple(slice(None, None, step) for _ in order)]
    x, norm = held.permute([order.index(dim) for dim in range(len(order))]), Rows()
    assert seen(without_values(norm, x)) == seen(norm(x))


@pytest.mark.parametrize(
    ("norm", "x"),
    [(nn.BatchNorm2d(4), torch.randn(2, 3, 4, 5)), (nn.LayerNorm(4), torch.randn(2, 3))],
    ids=["batch norm", "layer norm"],
)
def test_what_does_not_fit_is_an_error(norm: nn.Module, x: Tensor) -> None:
    with pytest.raises(RuntimeError):
        norm(x)
    with pytest.raises(RuntimeError):
        without_values(norm, x)


def test_norms_are_shaped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shaped = list[Any]()
    for function, shape in list(NORMS.items()):
        monkeypatch.setitem(NORMS, function, lambda *args, shape=shape: shaped.append(shape(*args)) or shaped[-1])
    without_values(nn.Sequential(nn.BatchNorm1d(3), nn.Flatten(), nn.LayerNorm(3)), torch.randn(4, 3))
    assert [value is not None for value in shaped] == [True, True]


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
