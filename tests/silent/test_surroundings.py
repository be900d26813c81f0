"""Rows of the silent-failure table: patches, other people's hooks, autocast and randomness around a point."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import fxkd
from fxkd.errors import CaptureError
from tests.support.hooks import Net, Values, assert_right, batch, last_output, plain, spec_of
from tests.support.oracle import assert_same, seed_everything

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
HERE = sys.modules[__name__]


def blend(x: Tensor) -> Tensor:
    """Stand for a function that models share: an augmentation, an attention."""
    return x * 2


ORIGINAL = blend


class Blends(Net):
    def between(self, x: Tensor) -> Tensor:
        return blend(x)


def function_spec() -> dict[str, Any]:
    spec = spec_of()
    recorder = {"point": {"type": "FunctionOutputs", "source": f"{__name__}.blend"}}
    return spec | {"student_recorders": recorder, "teacher_recorders": recorder}


def blended_by_hand(factor: float) -> Callable[[Any, Tensor], Values]:
    def by_hand(model: Net, x: Tensor) -> Values:
        feature = functional.linear(x, model.first.weight, model.first.bias) * factor
        return feature, functional.linear(feature, model.last.weight, model.last.bias)

    return by_hand


class Tool:
    """Wrap ``blend`` as recorders do: keep what is there, put a wrapper in its place, put back what was kept."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.before = HERE.blend

        def wrapper(x: Tensor) -> Tensor:
            self.seen.append(self.before(x))
            return self.seen[-1]

        HERE.blend = wrapper

    def put_back(self) -> None:
        HERE.blend = self.before


@BACKENDS
def test_function_patched_elsewhere(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tools that leave in the order they came: the first one's wrapper comes back and stays."""
    monkeypatch.setattr(HERE, "blend", ORIGINAL)
    first, second = Tool(), Tool()
    first.put_back(), second.put_back()
    blend(batch())
    assert blend is not ORIGINAL
    assert len(first.seen) == 1, "the tool is gone and still records"
    monkeypatch.setattr(HERE, "blend", ORIGINAL)

    distiller = fxkd.prepare(Blends(), Blends(1), function_spec(), backend=backend)
    outer = Tool()
    assert_right(distiller, blended_by_hand(2))
    assert len(outer.seen) >= 6, "teacher and student, three batches"
    outer.put_back()
    assert_right(distiller, blended_by_hand(2))
    assert HERE.blend is ORIGINAL


@BACKENDS
def test_function_replaced_after_capture(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody puts a faster kernel in: the next step calls it, not the function that was captured."""
    distiller = fxkd.prepare(Blends(), Blends(1), function_spec(), backend=backend)
    assert_right(distiller, blended_by_hand(2))
    monkeypatch.setattr(HERE, "blend", lambda x: x * 5)
    assert_right(distiller, blended_by_hand(5))
    monkeypatch.setattr(HERE, "blend", ORIGINAL)
    assert_right(distiller, blended_by_hand(2))


class WithUserHooks(nn.Module):
    """A block whose owner hung hooks on it: one scales what goes in, one adds to what comes out."""

    def __init__(self, seed: int = 0, *, hooked: bool = True) -> None:
        super().__init__()
        self.block, self.head = Net(seed), nn.Linear(8, 8)
        if hooked:
            hang_hooks(self.block)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))


def hang_hooks(module: nn.Module) -> None:
    module.register_forward_pre_hook(halve_input)
    module.register_forward_hook(add_ten)


def halve_input(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] / 2,)


def add_ten(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    return output + 10


def hooked_by_hand(point: str) -> Callable[[Any, Tensor], Values]:
    def by_hand(model: WithUserHooks, x: Tensor) -> Values:
        inside, output = plain(model.block, x / 2)
        output = output + 10
        feature = inside if point == "block.first" else output
        return feature, functional.linear(output, model.head.weight, model.head.bias)

    return by_hand


@BACKENDS
@pytest.mark.parametrize("point", ["block", "block.first"])
def test_users_hook_on_an_opened_module(point: str, backend: str) -> None:
    """A recorder's hook that was there before the user's sees what nobody else sees."""
    student, x = WithUserHooks(hooked=False), batch()
    features = last_output(student.block)
    hang_hooks(student.block)
    student(x)
    given_on = plain(student.block, x / 2)[1] + 10
    assert not torch.allclose(features["point"], given_on)

    distiller = fxkd.prepare(WithUserHooks(), WithUserHooks(1), spec_of(point), backend=backend)
    assert_right(distiller, hooked_by_hand(point))
    assert list(distiller.student.block._forward_hooks.values()) == [add_ten]
    assert list(distiller.student.block._forward_pre_hooks.values()) == [halve_input]


class Autocast(Net):
    """Computes its first layer in bfloat16, the last one in float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.inside(x)
        return self.last(x.float())

    def inside(self, x: Tensor) -> Tensor:
        return self.first(x)


def autocast_by_hand(model: Net, x: Tensor) -> Values:
    low = [t.bfloat16() for t in (x, model.first.weight, model.first.bias)]
    feature = functional.linear(*low)
    return feature, functional.linear(feature.float(), model.last.weight, model.last.bias)


@BACKENDS
def test_autocast_inside_an_opened_module(backend: str) -> None:
    """Hooks are right here (measured on torch 2.13); a plain symbolic trace loses the region, without a word."""
    student, x = Autocast(), batch()
    features = last_output(student.first)
    student(x)
    assert features["point"].dtype == torch.bfloat16
    student.first._forward_hooks.clear()
    traced: list[Tensor] = []
    fx.symbolic_trace(student).get_submodule("first").register_forward_hook(lambda *given: traced.append(given[2]))
    fx.symbolic_trace(student)(x)
    assert traced[-1].dtype == torch.float32

    distiller = fxkd.prepare(Autocast(), Autocast(1), spec_of(), backend=backend, return_records=True)
    assert distiller(x).records["student"]["point"][0].dtype == torch.bfloat16
    assert_right(distiller, autocast_by_hand, rtol=1e-5)


@BACKENDS
def test_autocast_around_shared_weights(backend: str) -> None:
    """The casts of weights that autocast keeps are made in the teacher's pass, without gradients: none is reused."""
    student, teacher = Net(), Net(1)
    teacher.first = student.first
    distiller = fxkd.prepare(student, teacher, spec_of("last"), backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        out = distiller(batch())
    out.loss.backward()
    assert student.first.weight.grad.any()


def scale(x: Tensor) -> Tensor:
    """Draw from Python's and numpy's generators."""
    return x * random.uniform(1, 2) + float(np.random.rand())


class Draws(Net):
    def between(self, x: Tensor) -> Tensor:
        return scale(x)


def draws_by_hand(model: Net, x: Tensor) -> Values:
    feature = functional.linear(x, model.first.weight, model.first.bias)
    feature = feature * random.uniform(1, 2) + float(np.random.rand())
    return feature, functional.linear(feature, model.last.weight, model.last.bias)


def drawing_spec() -> dict[str, Any]:
    recorder = {"point": {"type": "FunctionOutputs", "source": f"{__name__}.scale"}}
    return spec_of() | {"student_recorders": recorder, "teacher_recorders": recorder}


def draw_with_plain_tools(x: Tensor) -> None:
    """Hooks compare values of two draws; a trace draws once and never again."""
    seed_everything(0)
    one, two = Draws(), Draws()
    features = [last_output(model.last) for model in (one, two)]
    one(x), two(x)
    assert not torch.allclose(*(feature["point"] for feature in features)), "one model, one input, two values"
    traced = torch.export.export(Draws(), (x,)).module()
    assert torch.equal(traced(x), traced(x))


@BACKENDS
def test_randomness_inside_a_named_function(backend: str) -> None:
    """It runs at every step, on the draws that plain PyTorch would make."""
    draw_with_plain_tools(batch())
    distiller = fxkd.prepare(Draws(), Draws(1), drawing_spec(), backend=backend)
    assert_right(distiller, draws_by_hand)
    assert not torch.equal(distiller(batch()).output, distiller(batch()).output)


@BACKENDS
def test_randomness_that_is_delivered(backend: str) -> None:
    """One draw for both models: what the student gets is what the teacher's call gave."""
    path = f"{__name__}.scale"
    delivery = {"draw": {"type": "FunctionOutputs", "func_path": path, "max_keep_data": 1}}
    distiller = fxkd.prepare(Draws(), Draws(), spec_of("last") | {"distill_deliveries": delivery}, backend=backend)
    for _ in range(2):
        out = distiller(batch())
        assert not out.loss, "equal weights, equal draws"
    assert not torch.equal(distiller(batch()).output, out.output)


def test_randomness_outside_of_named_functions_is_refused() -> None:
    """A graph would hold one draw; the eager backend draws anew."""
    with pytest.raises(CaptureError, match=r"random numbers gives at .*test_surroundings.*backend='eager'"):
        fxkd.prepare(Draws(), Draws(1), spec_of(), example_inputs=batch())

    def by_hand(model: Net, x: Tensor) -> Values:
        feature = functional.linear(x, model.first.weight, model.first.bias)
        return feature, draws_by_hand(model, x)[1]

    assert_right(fxkd.prepare(Draws(), Draws(1), spec_of(), backend="eager"), by_hand)


@BACKENDS
def test_a_patched_function_that_is_no_point(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tools' wrappers around what the model calls are run as the model runs them, and are not kept."""
    distiller = fxkd.prepare(Blends(), Blends(1), spec_of("last"), backend=backend)

    def by_hand(model: Net, x: Tensor) -> Values:
        output = blended_by_hand(2)(model, x)[1]
        return output, output

    tool = Tool()
    assert_right(distiller, by_hand)
    assert tool.seen
    tool.put_back()
    assert blend is ORIGINAL
    assert_right(distiller, by_hand)
    assert_same(blend(batch()), batch() * 2)
