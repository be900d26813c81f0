"""The states of Python's, numpy's and torch's global random generators: compared, moved on, put back."""

import random
import sys
from typing import Any

import torch


def drawn_state() -> tuple[Any, ...]:
    """Give the states of Python's and numpy's global generators, comparable by ``==``."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    return random.getstate(), (name, keys.tobytes(), position, has_gauss, gauss)


def set_drawn_state(state: tuple[Any, ...]) -> None:
    """Set Python's and numpy's global generators to a state that ``drawn_state`` gave."""
    random.setstate(state[0])
    if len(state) > 1:
        numpy, (name, keys, *others) = sys.modules["numpy"], state[1]
        numpy.random.set_state((name, numpy.frombuffer(keys, dtype=numpy.uint32), *others))


def shift_drawn_state() -> None:
    """Move every global generator on, so that the next draws are others."""
    random.random()
    torch.rand(1)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.random()


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


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
