"""Guards: nodes that stop a graph where the model would go another way than it did when it was captured."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.tracked import Tracked
from fxkd.errors import GuardError

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def guard(left: Any, comparison: str, right: Any, line: str) -> None:
    """Stop unless the comparison holds: it did when the graph was captured, and the model goes another way when not."""
    if not COMPARISONS[comparison](left, right):
        raise GuardError(
            f"the graph holds only while {left} {comparison} {right}, as decided at {line}: call the distiller once "
            "outside of torch.compile with such inputs, so that they are captured too"
        )


def guard_form(value: Any, form: Any, line: str) -> None:
    """Stop unless ``value`` is built as it was: what is None, how much is in a tuple, which keys there are."""
    if not torch.compiler.is_compiling() and kind_of(value) != form:  # there an operator checks, or sizes are guarded
        raise GuardError(
            f"the graph holds only while what is called at {line} gives {form}, not {kind_of(value)}: call the "
            "distiller once outside of torch.compile with such inputs, so that they are captured too"
        )


def kind_of(value: Any) -> Any:
    """Say how a value is built, sizes and numbers left out.

    >>> kind_of((torch.zeros(2, 3), None, {"count": 4}))
    ('tuple', ((2, torch.float32), 'NoneType', ('dict', 'count', 'int')))
    """
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    kind = type(value.plain if isinstance(value, Tracked) else value).__name__
    if isinstance(value, Mapping):
        return kind, *(entry for key, part in value.items() for entry in (str(key), kind_of(part)))
    if isinstance(value, (tuple, list)):
        return kind, tuple(map(kind_of, value))
    return kind
