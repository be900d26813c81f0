"""Random generators of a model's own: found, compared and put back like the global ones."""

import pickle
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Generators:
    """The generators that hang on a model or on the Python modules that its classes come from."""

    found: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module, held: Iterable[Any]) -> "Generators":
        """Find them among what the model holds (``held``) and among the global names of its code."""
        sources = {type(module).__module__ for module in model.modules()}
        names = [vars(sys.modules[name]).values() for name in sources if _is_of_a_model(name)]
        values = {id(value): value for group in (held, *names) for value in list(group)}
        return cls(tuple(value for value in values.values() if _is_generator(value)))

    def states(self) -> list[Any]:
        """Copy the state of each."""
        return [_state(generator) for generator in self.found]

    def drawn(self) -> bytes:
        """Give the states of those of Python and numpy, comparable by ``==``."""
        return pickle.dumps([_state(one) for one in self.found if not isinstance(one, torch.Generator)])

    def put_back(self, states: list[Any]) -> None:
        """Set each to a state that ``states`` gave."""
        for generator, state in zip(self.found, states, strict=True):
            _set_state(generator, state)


def _is_of_a_model(name: str) -> bool:
    return name in sys.modules and name.partition(".")[0] not in ("torch", "fxkd", "builtins")


def _is_generator(value: Any) -> bool:
    return issubclass(type(value), (random.Random, torch.Generator, *_numpy_kinds()))


def _numpy_kinds() -> Iterator[type]:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield from (numpy.random.Generator, numpy.random.RandomState)


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
