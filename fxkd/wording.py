"""What a value is and what to do about one that does not fit, in words."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

MOST = 4  # how many parts of a value a message shows


class _Unknown:
    """Stands for a value that cannot be told, or about which a problem was reported already."""

    def __repr__(self) -> str:
        return "seen only on values"


UNKNOWN: Any = _Unknown()


def described(value: Any) -> str:
    """Say what a value is: the shape of a tensor, what a container holds.

    >>> described((torch.zeros(2, 3), None)), described({"logits": torch.zeros(2)})
    ('a tuple of 2 (a tensor (2, 3), None)', "a dict with 'logits'")
    """
    if isinstance(value, Tensor):
        kind = "" if value.dtype is torch.float32 else f" of {str(value.dtype).removeprefix('torch.')}"
        return f"a tensor {tuple(value.shape)}{kind}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(repr, value))}"
    if isinstance(value, (list, tuple)):
        more = [f"{len(value) - MOST} more"] if len(value) > MOST else []
        return f"a {type(value).__name__} of {len(value)} ({', '.join([*map(described, value[:MOST]), *more])})"
    return repr(value) if value is None or value is UNKNOWN else f"a {type(value).__name__}"


def pick_hint(values: Iterable[Any]) -> str:
    """Say how to take one value of several."""
    for value in values:
        if isinstance(value, Mapping) and value:
            return f"; pick one of them: 'data_idx: {next(iter(value))}'"
        if isinstance(value, (list, tuple)) and value:
            return "; pick one of them: 'data_idx: 0'" + (f" to {len(value) - 1}" if len(value) > 1 else "")
    return ""
