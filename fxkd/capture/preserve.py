"""Leave no trace: a model, the random generators and the grad mode are after a capture what they were before."""

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, list, set)
NOT_STATE = (type, ModuleType, FunctionType, MethodType, Tensor)


@contextmanager
def preserved(model: nn.Module, *, values: bool) -> Iterator[None]:
    """Put back attributes, containers, random states and the grad mode at the end, also on failure.

    Args:
        model: What is about to run.
        values: Whether the run is on real tensors, so that buffers must be kept too.
    """
    kept = [(owner, dict(owner.__dict__)) for owner in _owners(model)]
    containers = [(held, held.copy()) for _, state in kept for held in state.values() if type(held) in CONTAINERS]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()] if values else []
    grad, states = torch.is_grad_enabled(), random_states()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        set_random_states(states)
        for owner, state in kept:
            owner.__dict__.clear()
            owner.__dict__.update(state)
        for held, content in containers:
            held.clear()
            held.extend(content) if isinstance(held, list) else held.update(content)
        _put_back(buffers)


def _owners(model: nn.Module) -> list[Any]:
    """List the modules of ``model`` and the plain objects they hold: whoever may keep state during a run."""
    modules = list(model.modules())
    held = {id(value): value for module in modules for value in module.__dict__.values() if _is_stateful(value)}
    return modules + list(held.values())


def _is_stateful(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, (*NOT_STATE, nn.Module))


def _put_back(buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Write back what changed; what did not is not touched, as somebody's backward may need it."""
    with torch.no_grad():
        for buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


def drawn_state() -> tuple[Any, ...]:
    """Give the states of Python's and numpy's global generators, comparable by ``==``."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    return random.getstate(), (name, tuple(keys.tolist()), position, has_gauss, gauss)


def set_drawn_state(state: tuple[Any, ...]) -> None:
    """Set Python's and numpy's global generators to a state that ``drawn_state`` gave."""
    random.setstate(state[0])
    if len(state) > 1:
        sys.modules["numpy"].random.set_state(state[1])


def random_states() -> dict[str, Any]:
    """Copy the state of every global random generator."""
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state() if numpy else None,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set every global random generator to a state that ``random_states`` gave."""
    random.setstate(states["python"])
    if states["numpy"] is not None:
        sys.modules["numpy"].random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state_all(states["cuda"])
