"""Grad mode and autocast of opened modules, whatever mode the caller is in."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError
from tests.capture.replay import assert_replays, graph_of, targets
from tests.support.oracle import assert_same


class Model(nn.Module):
    """Run a function on a linear layer's output; the root is opened."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.fc(x))


def no_grad(model: nn.Module, h: Tensor) -> Tensor:
    with torch.no_grad():
        center = model.head(h) * 2
    return h - center


@torch.no_grad()
def centered(h: Tensor) -> Tensor:
    return h.mean(0) * 3


def decorated(model: nn.Module, h: Tensor) -> Tensor:
    return model.head(h) - centered(h)


def enable_inside(model: nn.Module, h: Tensor) -> Tensor:
    with torch.no_grad():
        frozen = model.head(h)
        with torch.enable_grad():
            live = model.head(h)
        frozen = frozen + h
    return frozen * live


def set_grad(model: nn.Module, h: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        frozen = model.head(h)
    with torch.set_grad_enabled(h.shape[0] > 1):
        live = model.head(h)
    return frozen * live


def keyword(model: nn.Module, h: Tensor) -> Tensor:
    with torch.set_grad_enabled(mode=False):
        frozen = model.head(h)
    return h * frozen


@torch.set_grad_enabled(False)
def set_by_decorator(h: Tensor) -> Tensor:
    return h * 2


def decorated_set(model: nn.Module, h: Tensor) -> Tensor:
    return h * set_by_decorator(model.head(h))


def caught(model: nn.Module, h: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            h = h + 1
            raise ValueError
    except ValueError:
        h = model.head(h)
    return h


def generator(model: nn.Module, h: Tensor) -> Tensor:
    @torch.no_grad()
    def parts() -> object:
        for row in range(2):
            yield model.head(h) * row

    return h + sum(parts())


def autocast(model: nn.Module, h: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = h @ model.head.weight
        with torch.autocast("cpu", enabled=False):
            h = h.float() @ model.head.weight
        h = torch.nn.functional.linear(h, model.head.weight)
    return h.float() @ model.head.weight


@torch.autocast("cpu", dtype=torch.bfloat16)
def lowered(h: Tensor, weight: Tensor) -> Tensor:
    return h @ weight


def autocast_decorated(model: nn.Module, h: Tensor) -> Tensor:
    return model.head(lowered(h, model.head.weight).float())


def amp_autocast(model: nn.Module, h: Tensor) -> Tensor:
    with torch.amp.autocast("cpu", torch.bfloat16, cache_enabled=False):
        return h @ model.head.weight


REGIONS = [
    no_grad, decorated, enable_inside, set_grad, keyword, decorated_set, caught, generator, autocast,
    autocast_decorated, amp_autocast,
]  # fmt: skip


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("function", REGIONS, ids=lambda function: function.__name__)
def test_replayed(function: Callable[..., Tensor]) -> None:
    assert_replays(Model(function), (batch(2),), (batch(5),))


@pytest.mark.parametrize("caller", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("capturer", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("function", [enable_inside, set_grad], ids=lambda f: f.__name__)
def test_the_callers_grad_mode_counts_and_is_kept(
    function: Callable[..., Tensor],
    capturer: Callable[[], AbstractContextManager[None]],
    caller: Callable[[], AbstractContextManager[None]],
) -> None:
    model = Model(function)
    with capturer():
        graph_module = graph_of(model, batch(2))
        assert torch.is_grad_enabled() is (capturer is torch.enable_grad)
    with caller():
        expected, found = model(batch(5)), graph_module(batch(5))
        assert torch.is_grad_enabled() is (caller is torch.enable_grad)
    assert found.requires_grad is expected.requires_grad
    assert_same(expected, found)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_callers_autocast_is_kept(dtype: torch.dtype | None) -> None:
    model = Model(autocast)
    graph_module = graph_of(model, batch(2))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        expected, found = model(batch(5)), graph_module(batch(5))
        assert torch.is_autocast_enabled("cpu") is (dtype is not None)
    assert not torch.is_autocast_enabled("cpu")
    assert_same(expected, found)


def test_capture_under_the_callers_autocast() -> None:
    model = Model(lambda model, h: model.head(h).float() @ model.fc.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        graph_module = graph_of(model, batch(2))
        assert_same(model(batch(5)), graph_module(batch(5)))
    assert_same(model(batch(5)), graph_module(batch(5)))  # its own mode is not baked


def test_a_region_inside_a_leaf_needs_no_node() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Model(no_grad))
    graph_module = assert_replays(model, (batch(2),), (batch(5),))
    assert targets(graph_module) == ["input", "model.0", "model.1", "output"]


def test_inference_mode_inside_an_opened_module_is_kept_or_refused() -> None:
    def frozen(model: nn.Module, h: Tensor) -> Tensor:
        with torch.inference_mode():
            center = model.head(h) * 2
        return h - center.clone()

    model = Model(frozen)
    try:
        graph_module = graph_of(model, batch(2))
    except CaptureError:
        return
    for run in (model, graph_module):
        model.zero_grad()
        run(batch(5)).square().sum().backward()
        assert model.head.weight.grad is None


class Checks(nn.Module):
    """Checks values before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        torch._check_tensor_all_with(ValueError, x < 100)
        return h * 2


def test_a_check_of_values_is_made_at_every_step() -> None:
    recorded = fxkd.record(Checks(), ["fc"], torch.ones(2, 4))
    compiled = torch.compile(recorded, fullgraph=True, backend="aot_eager")
    for run in (recorded, compiled):
        assert_same(recorded.model(torch.ones(3, 4)), run(torch.ones(3, 4))[0])
        with pytest.raises(RuntimeError, match=r"ValueError: not all that is checked at .*test_regions.py.* is true"):
            run(torch.full((3, 4), 100.0))
