"""Regions of a forward without gradients, in inference mode or under autocast: entering and leaving become nodes.

Leaving puts back what was found on entering, so the graph is right whatever mode its caller is in.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.autograd.grad_mode import _enter_inference_mode, _exit_inference_mode

from fxkd.capture.lines import current_line
from fxkd.capture.recording import quiet
from fxkd.capture.tape import Tape
from fxkd.errors import CaptureError
from fxkd.patcher import patched

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
SET_GRAD_MODE = torch._C._set_grad_enabled
SEEDS = ("manual_seed", "set_rng_state", "seed")


@contextmanager
def recorded_regions(tape: Tape) -> Iterator[None]:
    """Write every change of the grad mode and every autocast region to ``tape``."""
    regions: dict[int, fx.Node] = {}
    grad_off = _entering(tape, regions, lambda region: _set_grad_mode(tape.graph, False))
    grad_on = _entering(tape, regions, lambda region: _set_grad_mode(tape.graph, True))
    grad_as_told = _entering(tape, regions, lambda region, mode: _set_grad_mode(tape.graph, mode))
    grad_back = _leaving(tape, regions, SET_GRAD_MODE)
    changes = (
        (torch.no_grad, "__enter__", grad_off),
        (torch.no_grad, "__exit__", grad_back),
        (torch.enable_grad, "__enter__", grad_on),
        (torch.enable_grad, "__exit__", grad_back),
        (torch.set_grad_enabled, "__init__", grad_as_told),
        (torch.set_grad_enabled, "__exit__", grad_back),
        (torch.inference_mode, "__enter__", _entering(tape, regions, lambda region: _inference(tape.graph, region))),
        (torch.inference_mode, "__exit__", _leaving(tape, regions, _exit_inference_mode)),
        (torch.autocast, "__enter__", _entering(tape, regions, lambda region: _autocast(tape.graph, region))),
        (torch.autocast, "__exit__", _leaving(tape, regions, _exit_autocast)),
    )
    seeding = [(owner, name, _refusing(tape, name)) for owner in (torch, torch.random) for name in SEEDS]
    checks = [(torch, "_check_tensor_all_with", _checking(tape))]
    with ExitStack() as stack:
        for owner, name, wrap in (*changes, *seeding, (torch.random, "fork_rng", _refusing(tape, "fork_rng")), *checks):
            stack.enter_context(patched(owner, name, wrap))
        yield


def _checking(tape: Tape) -> Wrap:
    """Wrap torch's check that all of a tensor is true: the graph makes it at every step."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(kind: type[Exception], condition: Any, message: Any = None) -> None:
            if not tape.listening:
                original(kind, condition, message)
                return
            told = f"{kind.__name__}: not all that is checked at {current_line()} is true"
            node = tape.graph.call_function(torch._assert_async, (tape.emit(torch.all, (condition,)), told))
            node.meta["effect"] = True

        return call

    return wrap


def _refusing(tape: Tape, name: str) -> Wrap:
    """Wrap a function that sets torch's generator: no node would do that again."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if tape.listening:
                raise CaptureError(
                    f"torch.random.{name} is called at {current_line()}; a graph would not do that at every step: name "
                    "the function or method around it as a point, so that it stays one node, or use backend='eager'"
                )
            return original(*args, **kwargs)

        return call

    return wrap


def _entering(tape: Tape, regions: dict[int, fx.Node], note: Callable[..., fx.Node]) -> Wrap:
    """Wrap a method that begins a region: ``note`` writes it down and gives the node that ends it."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(region: Any, *args: Any, **kwargs: Any) -> Any:
            if tape.listening:
                regions[id(region)] = note(region, *args, **kwargs)
            with quiet(tape):
                return original(region, *args, **kwargs)

        return begin

    return wrap


def _leaving(tape: Tape, regions: dict[int, fx.Node], target: Callable[..., Any]) -> Wrap:
    """Wrap a method that ends a region by calling ``target`` on what its beginning found."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def end(region: Any, *args: Any) -> Any:
            if tape.listening and id(region) in regions:
                tape.graph.call_function(target, (regions.pop(id(region)),))
            with quiet(tape):
                return original(region, *args)

        return end

    return wrap


def _set_grad_mode(graph: fx.Graph, enabled: bool) -> fx.Node:
    """Set the grad mode; give the node that holds what it was before."""
    previous = graph.call_function(torch.is_grad_enabled)
    graph.call_function(SET_GRAD_MODE, (enabled,))
    return previous


def _inference(graph: fx.Graph, region: Any) -> fx.Node:
    """Enter inference mode; give the node that holds what must be left."""
    return graph.call_function(_enter_inference_mode, (region.mode,))


def _autocast(graph: fx.Graph, region: Any) -> fx.Node:
    """Enter autocast as ``region`` does; give the node that holds what must be left."""
    settings = (region.device, region.fast_dtype, region._enabled, region._cache_enabled)
    return graph.call_function(_enter_autocast, settings)
