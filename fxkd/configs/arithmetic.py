"""Which arithmetic and which functions are done without executing a file, and which results are too large for it."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

LARGEST = 1_000_000  # of a text, a list or a number of bits that arithmetic may make
PURE: Mapping[str, Callable[..., Any]] = {
    one.__name__: one for one in (list, tuple, set, int, float, str, len, min, max, abs, round, sum)
}
BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: Mapping[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}


def reaches_in(template: str) -> bool:
    """Tell whether a format looks into objects, or asks for very wide texts."""
    fields = [(name or "", how or "") for _, name, how, _ in Formatter().parse(template)]
    return any(set(".[") & set(name) or too_wide(how) for name, how in fields)


def too_wide(how: str) -> bool:
    """Tell whether a format asks for a very wide text.

    >>> too_wide("%05d"), too_wide(">999999999")
    (False, True)
    """
    return re.search(r"\d{6}", how) is not None


def too_large(kind: ast.operator, a: Any, b: Any) -> bool:
    """Tell whether a result would be larger than a config needs.

    >>> too_large(ast.Pow(), 2, 10), too_large(ast.Mult(), "x", 10**12)
    (False, True)
    """
    if isinstance(kind, ast.Pow):
        numbers = isinstance(a, int) and isinstance(b, int)
        return numbers and abs(a).bit_length() * max(b, 0) > LARGEST
    if isinstance(kind, ast.Mod):
        return isinstance(a, (str, bytes)) and too_wide(str(a))
    if isinstance(kind, ast.Mult):
        sizes = [(one, n) for one, n in ((a, b), (b, a)) if hasattr(one, "__len__") and isinstance(n, int)]
        return any(len(one) * n > LARGEST for one, n in sizes)
    return False
