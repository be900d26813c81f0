"""What a program gives that replays CUDA graphs is the caller's own, shown on a stand-in for the replay."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxkd
from tests.support.hooks import Net, assert_right, batch, plain, spec_of
from tests.support.oracle import assert_same

REPLAYED: list[dict[str, Any]] = [
    {"mode": "reduce-overhead"},
    {"mode": "max-autotune"},
    {"options": {"triton.cudagraphs": True}},
    {"backend": "cudagraphs"},
]
OTHERS: list[dict[str, Any]] = [{}, {"mode": "max-autotune-no-cudagraphs"}, {"options": {"triton.cudagraphs": False}}]


class Replay:
    """Stands for a compiled module: the results of every call lie in the memory of the first."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.memory: list[Tensor] = []

    def __call__(self, *values: Tensor) -> Any:
        results, form = pytree.tree_flatten(self.module(*values))
        tensors = [value.detach() for value in results if isinstance(value, Tensor)]
        self.memory = self.memory or [tensor.clone() for tensor in tensors]
        for place, tensor in zip(self.memory, tensors, strict=True):
            place.copy_(tensor)
        held = iter(self.memory)
        return pytree.tree_unflatten([next(held) if isinstance(v, Tensor) else v for v in results], form)


def prepared(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Any]) -> fxkd.Distiller:
    @functools.wraps(torch.compile)  # the options are checked against its signature
    def stand_in(module: nn.Module, **options: Any) -> Any:
        return compiled(module)

    monkeypatch.setattr(torch, "compile", stand_in)
    return fxkd.prepare(
        Net(0), Net(1), spec_of(), example_inputs=batch(), compile=options, return_records=True, verify=False
    )


def two_steps(distiller: fxkd.Distiller) -> tuple[Any, Any, Any]:
    """Give the first step's results as they were, as they are after the second step, and the second step's."""
    first = pytree.tree_map_only(Tensor, Tensor.detach, dict(distiller(batch(3))))
    then = pytree.tree_map_only(Tensor, Tensor.clone, first)
    return then, first, pytree.tree_map_only(Tensor, Tensor.detach, dict(distiller(batch(3, seed=1))))


@pytest.mark.parametrize("options", REPLAYED, ids=str)
def test_what_a_step_gave_is_not_overwritten(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    then, now, second = two_steps(prepared(options, monkeypatch, Replay))
    assert_same(then, now)
    assert not torch.equal(now["loss"], second["loss"])
    for side in ("student", "teacher"):
        assert not torch.equal(now["records"][side]["point"][0], second["records"][side]["point"][0])


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_nothing_is_copied_where_nothing_is_replayed(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, first, second = two_steps(prepared(options, monkeypatch, Replay))
    assert first["loss"].data_ptr() == second["loss"].data_ptr()


def test_gradients_flow_through_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_right(prepared(REPLAYED[0], monkeypatch, lambda module: module), plain)
