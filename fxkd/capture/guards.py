"""Guards: nodes that stop a graph where the model would go another way than it did when it was captured."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.structure import parts
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


def kind_of(value: Any, *, is_followed: bool = True) -> Any:
    """Say how a value is built, and what in it a graph does not follow: numbers are followed in plain containers.

    Args:
        value: What a call gave.
        is_followed: Whether it is in tuples, lists and dicts alone.

    >>> kind_of((torch.zeros(2, 3), None, {"count": 4}))
    ('tuple', ((2, torch.float32), 'NoneType', ('dict', 'count', 'int')))
    >>> from collections import OrderedDict
    >>> kind_of(slice(2)), kind_of({2, 1}), kind_of(OrderedDict(count=4))
    ('slice', ('set', ('1', '2')), ('OrderedDict', 'count', ('int', '4')))
    """
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    plain = value.plain if isinstance(value, Tracked) else value
    kind = "tuple" if isinstance(plain, torch.Size) else type(plain).__name__
    is_plain = is_followed and type(value) in (tuple, list, dict, torch.Size)
    if isinstance(value, (set, frozenset)):
        return kind, tuple(sorted(map(repr, value)))
    if isinstance(value, (tuple, list)):
        return kind, tuple(kind_of(part, is_followed=is_plain) for part in value)
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        held = ((str(key), kind_of(part, is_followed=is_plain)) for part, _, key in parts(value))
        return kind, *(entry for pair in held for entry in pair)
    is_seen = is_followed and isinstance(plain, (int, float, str))  # numbers are followed, truths and texts guarded
    return (kind, repr(plain)) if _is_constant(plain) and not is_seen else kind


def _is_constant(value: Any) -> bool:
    """Tell whether a value is one that Python code may go by: it says what it is, and holds nothing."""
    kinds = (int, float, complex, bool, str, bytes, torch.dtype, torch.device, Enum)
    return isinstance(value, kinds) or (
        type(value).__module__ == "numpy" and hasattr(value, "item") and not value.shape
    )
