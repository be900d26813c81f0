"""Functions as nodes of a graph: under which name, whether they need values, and what they may read."""

import dis
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

import torch


@cache
def custom_function(cls: Any) -> Callable[..., Any]:
    """Name a custom autograd function so that a graph can call it."""

    def apply(*args: Any) -> Any:
        return cls.apply(*args)

    apply.__name__ = apply.__qualname__ = f"apply_{cls.__name__}"
    return apply


@cache
def callable_in_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give what the code of a graph can name: it writes a method of torch's as if it were a function of the module."""
    name, module = getattr(function, "__qualname__", ""), str(getattr(function, "__module__", ""))
    if "." not in name or module.partition(".")[0] != "torch":
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name.replace(".", "_")
    return call


@dataclass(frozen=True, slots=True)
class Kind:
    """What a named function does that fake tensors do not show.

    Args:
        draws: It runs without values, and draws.
        needs_values: It does not run without values, so that they may decide the sizes of what it gives.
        may_give_nothing: It may give None.
    """

    draws: bool
    needs_values: bool
    may_give_nothing: bool

    @property
    def is_plain(self) -> bool:
        """Whether it does neither."""
        return not self.draws and not self.needs_values


def runs_without_values(function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Tell whether a function runs on fake tensors without a word."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            function(*args, **kwargs)
    except Exception:  # noqa: BLE001 (whatever it is, values are needed)
        return False
    return True


@cache
def names_read(function: Callable[..., Any]) -> frozenset[str]:
    """Give the names of the attributes that a function's own code may read, in whichever branch.

    >>> sorted(names_read(lambda x: x.scale if x.training else x.offset))
    ['offset', 'scale', 'training']
    """
    return frozenset(_names_read(getattr(inspect.unwrap(function), "__code__", None)))


def _names_read(code: Any) -> Iterator[str]:
    if isinstance(code, CodeType):
        yield from (one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_ATTR", "LOAD_METHOD"))
        for part in code.co_consts:
            yield from _names_read(part)
