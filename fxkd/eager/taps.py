"""One wrapper per function or method, however many recorders and deliveries are on it, in whatever order they came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol

from fxkd.patcher import lock, own, patched
from fxkd.records import pick, with_part

Observer = Callable[[tuple[Any, ...], dict[str, Any]], Callable[[Any], None]]
"""Sees the arguments before the call, gives what sees the value after it."""


class Queue(Protocol):
    """What a tap needs of a delivery."""

    override_data: bool
    is_of_inputs: bool
    data_idx: int | str | None
    own_arguments: int

    def require_room(self) -> None: ...
    def push(self, value: Any) -> None: ...
    def pop(self) -> Any: ...


class Tap:
    """All recorders and deliveries that are on one function now: recorders outside, deliveries inside."""

    def __init__(self, owner: object, name: str) -> None:
        self.observers: list[Observer] = []
        self.deliveries: list[Queue] = []
        self.call: Callable[..., Any] | None = None  # the wrapper, once it is in place
        self.patch = patched(owner, name, self._wrap)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            seen = [observe(args, kwargs) for observe in tuple(self.observers)]
            value = self._value(function, args, kwargs)
            for see in seen:
                see(value)
            return value

        self.call = call
        return call

    def _value(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function, or take the value that was delivered; of several deliveries the last one gives it."""
        for delivery in self._those(keep=True):
            delivery.require_room()
        args, kwargs = self._arguments(args, kwargs)
        outputs = self._those(keep=False, of_inputs=False)
        whole = [delivery.pop() for delivery in outputs if delivery.data_idx is None]
        value = whole[-1] if whole else function(*args, **kwargs)
        for delivery in outputs:
            if delivery.data_idx is not None:
                value = with_part(value, delivery.data_idx, delivery.pop(), str(delivery))
        for delivery in self._those(keep=True, of_inputs=False):
            whole_value = delivery.data_idx is None
            delivery.push(value if whole_value else pick(value, delivery.data_idx or 0, str(delivery)))
        return value

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep what a call is given, or give it what another was given."""
        for delivery in self._those(keep=True, of_inputs=True):
            delivery.push((args[delivery.own_arguments :], kwargs))
        for delivery in self._those(keep=False, of_inputs=True):
            given, kwargs = delivery.pop()
            args = (*args[: delivery.own_arguments], *given)
        return args, kwargs

    def _those(self, *, keep: bool, of_inputs: bool | None = None) -> list[Queue]:
        """List the deliveries that keep values now, or those that give them."""
        ours = [delivery for delivery in self.deliveries if delivery.override_data is not keep]
        return [delivery for delivery in ours if of_inputs in (None, delivery.is_of_inputs)]


_taps: list[Tap] = []  # those in place now


@contextmanager
def observed(owner: object, name: str, observer: Observer) -> Iterator[None]:
    """Let ``observer`` see every call of ``owner.name`` while inside, delivered or not."""
    with lock:
        tap = _join(owner, name)
        tap.observers.append(observer)
    try:
        yield
    finally:
        with lock:
            tap.observers.remove(observer)
            _leave(tap)


@contextmanager
def delivered(owner: object, name: str, delivery: Queue) -> Iterator[None]:
    """Let ``delivery`` keep or give the values of ``owner.name`` while inside."""
    with lock:
        tap = _join(owner, name)
        tap.deliveries.append(delivery)
    try:
        yield
    finally:
        with lock:
            tap.deliveries.remove(delivery)
            _leave(tap)


def _join(owner: object, name: str) -> Tap:
    """Give the tap that is there, or put one there; a patch of someone else on top of a tap gets a tap of its own."""
    there = own(owner, name)
    call = getattr(there, "__func__", there)  # out of a static or class method
    for tap in _taps:
        if tap.call is call:
            return tap
    tap = Tap(owner, name)
    tap.patch.__enter__()
    _taps.append(tap)
    return tap


def _leave(tap: Tap) -> None:
    """Put back what was there when the last one leaves."""
    if not tap.observers and not tap.deliveries:
        _taps.remove(tap)
        tap.patch.__exit__(None, None, None)
