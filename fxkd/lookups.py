"""Which functions and methods a model's own code may look up while it runs, and where."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import nn

from fxkd.capture import PointName
from fxkd.capture.lines import is_library
from fxkd.errors import PointError
from fxkd.points import Place, find_function, find_method

DEPTH = 3  # modules on the way to a function: torch.nn.functional.softmax
NAMESPACE = "__name__"

is_library_file = lru_cache(maxsize=None)(is_library)  # asked at every call of every function


def lookups(run: Callable[[], object]) -> Iterator[tuple[PointName, Place]]:
    """Run once and give every place that the code of the model that ran may call; each is given once.

    A place is here if a line that names it belongs to a function that ran; whether it was called is for the caller to
    see. Functions are those of Python files outside the standard library and torch's built-in ones.

    >>> import colorsys
    >>> [name.path for name, _ in lookups(lambda: colorsys.rgb_to_hsv(0, 0, 0))]  # nothing but the standard library
    []
    """
    given = set()
    for code, owner, namespace in _ran(run):
        for name, place in (*_functions(code, namespace), *_methods(code, owner, namespace)):
            if (id(place.owner), place.name) not in given:
                given.add((id(place.owner), place.name))
                yield name, place


def called_by_model(frame: FrameType) -> bool:
    """Tell whether ``frame`` runs a line of a model's own code."""
    return not is_library_file(frame.f_code.co_filename)


def _ran(run: Callable[[], object]) -> list[tuple[CodeType, type | None, dict[str, Any]]]:
    """Run; list the model's own code that ran, with the class of its first argument and its global names."""
    found: dict[tuple[int, int, type | None], tuple[CodeType, type | None, dict[str, Any]]] = {}

    def see(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and called_by_model(frame):
            code, owner = frame.f_code, _class_of_first(frame)
            found.setdefault((id(code), id(frame.f_globals), owner), (code, owner, frame.f_globals))

    previous = sys.getprofile()
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(previous)
    return list(found.values())


def _class_of_first(frame: FrameType) -> type | None:
    """Give the class that the first argument is, or is an instance of: that of ``self`` or ``cls`` in a method."""
    code = frame.f_code
    if code.co_argcount:
        first = frame.f_locals.get(code.co_varnames[0])
    elif code.co_flags & inspect.CO_VARARGS:
        first = next(iter(frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount], ())), None)
    else:
        return None
    return first if isinstance(first, type) else type(first)


def _functions(code: CodeType, namespace: dict[str, Any]) -> Iterator[tuple[PointName, Place]]:
    """Give the functions that ``code`` can reach by the names it uses: ``squash``, ``F.softmax``, ``torch.cat``."""
    holders = {id(namespace): (str(namespace.get(NAMESPACE)), namespace)}
    fresh = list(holders.values())
    for _ in range(DEPTH + 1):
        reached = [(f"{path}.{name}", held.get(name)) for path, held in fresh for name in code.co_names]
        for path, value in reached:
            if _is_function(value):
                yield from _resolved("FunctionOutputs", path, find_function)
        modules = [(path, vars(value)) for path, value in reached if isinstance(value, ModuleType)]
        fresh = [(path, held) for path, held in modules if id(held) not in holders]
        holders.update((id(held), (path, held)) for path, held in fresh)


def _is_function(value: object) -> bool:
    if isinstance(value, BuiltinFunctionType):
        return str(value.__module__).partition(".")[0] == "torch"
    if not isinstance(value, FunctionType):
        return False
    return str(value.__module__).partition(".")[0] not in sys.stdlib_module_names


def _methods(code: CodeType, owner: type | None, namespace: dict[str, Any]) -> Iterator[tuple[PointName, Place]]:
    """Give the method that ``code`` is, by the class that defines it."""
    static = _class_by_name(code, namespace)
    for base in dict.fromkeys((*(owner.__mro__ if owner else ()), *(static.__mro__ if static else ()))):
        for name, raw in list(vars(base).items()):
            if _is_code_of(raw, code) and not _stands_for_module(base, name):
                yield from _resolved("MethodOutputs", f"{base.__module__}.{base.__qualname__}.{name}", find_method)


def _class_by_name(code: CodeType, namespace: dict[str, Any]) -> type | None:
    """Find the class in whose body ``code`` was written: a static method has no ``self`` that tells."""
    held: Any = namespace.get(code.co_qualname.partition(".")[0])
    for name in code.co_qualname.split(".")[1:-1]:
        held = vars(held).get(name) if isinstance(held, type) else None
    return held if isinstance(held, type) else None


def _is_code_of(raw: object, code: CodeType) -> bool:
    function = raw.__func__ if isinstance(raw, (staticmethod, classmethod)) else raw
    if not isinstance(function, FunctionType):
        return False
    return function.__code__ is code or getattr(inspect.unwrap(function), "__code__", None) is code


def _stands_for_module(base: type, name: str) -> bool:
    """Tell whether a method is a module's own call, or one that Python calls by itself."""
    if issubclass(base, nn.Module) and name in ("forward", "__call__"):
        return True
    return name != "__call__" and name.startswith("__") and name.endswith("__")


def _resolved(kind: str, path: str, find: Callable[[str], Place]) -> Iterator[tuple[PointName, Place]]:
    """Give the place at ``path`` if the path leads there: what is made inside a function has none."""
    with suppress(PointError):
        yield PointName(kind, path), find(path)
