"""What the connectors refuse, and how they say it: checks of options and of shapes, none of which reads a tensor."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from fxkd.errors import SpecError, did_you_mean


def refusal(owner: nn.Module, problem: str) -> SpecError:
    """Make the error that names the connector and its ``problem``."""
    return SpecError([f"{type(owner).__name__}: {problem}"])


def check_counts(owner: nn.Module, **options: object) -> None:
    """Refuse options that are not whole numbers above zero."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise refusal(owner, f"{name} is {value!r}; it must be a whole number above 0.")


def check_prefix(owner: nn.Module, prefix_tokens: object) -> None:
    """Refuse a number of tokens that is no whole number of 0 or more."""
    if not isinstance(prefix_tokens, int) or isinstance(prefix_tokens, bool) or prefix_tokens < 0:
        raise refusal(owner, f"prefix_tokens is {prefix_tokens!r}; it must be a whole number of 0 or more.")


def check_flags(owner: nn.Module, **options: object) -> None:
    """Refuse options that are neither True nor False."""
    for name, value in options.items():
        if not isinstance(value, bool):
            raise refusal(owner, f"{name} is {value!r}; it must be true or false.")


def check_number(owner: nn.Module, name: str, value: Any) -> None:
    """Refuse an option that is not a finite real number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        hint = " YAML reads 1e-3 as text: write 1.0e-3." if isinstance(value, str) else ""
        raise refusal(owner, f"{name} is {value!r}; it must be a number.{hint}")


def check_temperatures(owner: nn.Module, **options: Any) -> None:
    """Refuse temperatures that are not numbers above zero."""
    for name, value in options.items():
        check_number(owner, name, value)
        if not value > 0:
            raise refusal(owner, f"{name} is {value!r}; a temperature must be above 0.")


def check_choice(owner: nn.Module, name: str, given: object, allowed: Iterable[object]) -> None:
    """Refuse an option whose value is not one of ``allowed``."""
    choices = list(allowed)
    if given not in choices:
        near = did_you_mean(str(given), map(str, choices))
        raise refusal(owner, f"{name} is {given!r}; it can be {', '.join(map(repr, choices))}.{near}")


def check_init_cfg(owner: nn.Module, init_cfg: object) -> None:
    """Refuse every ``init_cfg`` but None."""
    if init_cfg is not None:
        problem = (
            f"init_cfg is {init_cfg!r}; it can only be None. Build the connector, then change or load its weights."
        )
        raise refusal(owner, problem)


def check_tensor(owner: nn.Module, feature: object) -> None:
    """Refuse a feature that is no tensor."""
    if not isinstance(feature, Tensor):
        hint = "; pick one part of it with 'data_idx'" if isinstance(feature, (tuple, list, Mapping)) else ""
        raise refusal(owner, f"feature is a {type(feature).__name__}, not a tensor{hint}.")


def check_map(owner: nn.Module, feature: Tensor, name: str = "", channels: int | None = None) -> None:
    """Refuse a feature that is no map (N, C, H, W), or whose C is not what the option ``name`` says."""
    check_tensor(owner, feature)
    if feature.ndim != 4:
        raise refusal(owner, f"feature has shape {tuple(feature.shape)}; it takes a map (N, C, H, W).")
    if channels is not None and feature.shape[1] != channels:
        raise refusal(
            owner, f"feature has shape {tuple(feature.shape)}; its channels (dim 1) must be {name}, {channels}."
        )
