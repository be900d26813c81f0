"""Replace a function, a method or one module's ``forward`` for a while, and put back exactly what was there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

from fxkd.errors import PointError, did_you_mean
from fxkd.points import MISSING, Place, class_attribute, described_like, original

lock = threading.RLock()  # held while something is swapped; who patches for the whole process may hold it longer


@contextmanager
def patched(owner: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace ``owner.name`` by ``wrap(what it was)`` while inside; patches nest, the last one in is the outermost.

    Args:
        owner: A Python module, a class, or an object such as one ``nn.Module`` (for its ``forward``).
        name: The attribute. In a class, static and class methods stay such, and an inherited method is replaced for
            ``owner`` only; what ``wrap`` is given then looks the base's method up at each call, as ``super()`` does.
        wrap: Gets the callable as ``points.original`` describes it (bound, if ``owner`` is an object).

    Raises:
        PointError: There is no such attribute, or Python does not allow it to be replaced.

    >>> import math
    >>> with patched(math, "sqrt", lambda sqrt: lambda x: -sqrt(x)):
    ...     math.sqrt(4)
    -2.0
    >>> math.sqrt(4)
    2.0
    """
    with lock:
        before = own(owner, name)
        _set(owner, name, _replacement(owner, name, wrap))
    try:
        yield
    finally:
        with lock:
            if before is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


def own(owner: object, name: str) -> object:
    """Give what ``owner`` itself holds under ``name``, not its bases or its class; ``MISSING`` if nothing."""
    return getattr(owner, "__dict__", {}).get(name, MISSING)


def _replacement(owner: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> object:
    if not hasattr(owner, name):
        raise PointError(f"{owner!r} has no {name!r} to replace." + did_you_mean(name, dir(owner)))
    owned = own(owner, name) is not MISSING
    if isinstance(owner, type):
        raw = class_attribute(owner, name)
        function = original(Place(owner, name, name))
        known = owned or raw is MISSING  # what only the metaclass has is not inherited
        return described_like(raw, wrap(function if known else _behind_class(owner, name, raw, function)))
    if owned or isinstance(owner, ModuleType) or class_attribute(type(owner), name) is MISSING:
        return wrap(getattr(owner, name))
    return wrap(_behind_object(owner, name))


def _behind_class(owner: type, name: str, raw: object, function: Callable[..., Any]) -> Callable[..., Any]:
    """Call the method that ``owner`` inherits, as it is at that time."""
    static = isinstance(described_like(raw, function), staticmethod)

    @wraps(function)
    def inherited(*args: Any, **kwargs: Any) -> Any:
        if static:
            return getattr(super(owner, owner), name)(*args, **kwargs)
        if args and _is_below(owner, args[0]):
            return getattr(super(owner, args[0]), name)(*args[1:], **kwargs)
        return function(*args, **kwargs)  # called through the class with an object of another kind

    return inherited


def _is_below(owner: type, given: object) -> bool:
    """Say whether ``super(owner, given)`` is allowed (virtual subclasses are not)."""
    return owner in type(given).__mro__ or (isinstance(given, type) and owner in given.__mro__)


def _behind_object(owner: object, name: str) -> Callable[..., Any]:
    """Call the method that the class of ``owner`` holds, as it is at that time."""

    @wraps(getattr(owner, name))
    def from_class(*args: Any, **kwargs: Any) -> Any:
        raw: Any = class_attribute(type(owner), name)
        bound = raw.__get__(owner, type(owner)) if hasattr(type(raw), "__get__") else raw
        return bound(*args, **kwargs)

    return from_class


def _set(owner: object, name: str, value: object) -> None:
    try:
        setattr(owner, name, value)
    except (TypeError, AttributeError) as error:
        hint = "Name the function or method of yours that calls it instead."
        raise PointError(f"{name!r} of {owner!r} cannot be replaced: {error}. {hint}") from error
