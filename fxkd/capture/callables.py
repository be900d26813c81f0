"""Functions as nodes of a graph: under which name, and whether they need values."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn


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
        reads: What it reads of modules, by their identities and the names.
    """

    draws: bool
    needs_values: bool
    reads: Mapping[tuple[int, str], nn.Module]

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
