"""Numbers that carry the node they came from, so that a batch size or a drawn number stays free in the graph."""

import operator
from collections.abc import Callable
from typing import Any, Protocol

from torch import fx

SYMBOLS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
CONVERSIONS = [f"__{name}__" for name in ("abs", "pos", "int", "float", "round", "trunc", "floor", "ceil", "divmod")]
BITS = ["__index__", "__invert__", "bit_length"]
BITS += [f"__{side}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for side in ("", "r")]
NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


class Tape(Protocol):
    """What a tracked number needs of the recording."""

    @property
    def listening(self) -> bool:
        """Whether the recording is on."""

    def emit(self, target: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        """Add a call to the graph."""

    def decide(self, left: Any, comparison: str, right: Any) -> None:
        """Add a guard to the graph: the program went on as it did because the comparison holds."""


class Tracked:
    """Mixed into ``int`` and ``float``: arithmetic adds nodes, a decision adds a guard."""

    plain: Any  # the number alone
    tape: Tape
    make: Callable[[], fx.Node]
    _node: fx.Node | None

    @classmethod
    def of(cls, value: Any, tape: Tape, make: Callable[[], fx.Node]) -> Any:
        """Wrap ``value``; ``make`` gives its node when somebody first asks."""
        number = cls.__new__(cls, value)  # type: ignore[call-arg]
        number.plain, number.tape, number.make, number._node = plain(value), tape, make, None
        return number

    @property
    def node(self) -> fx.Node:
        """The node that computes this number."""
        if self._node is None:
            self._node = self.make()
        return self._node

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.plain), (self.plain,)

    def __copy__(self) -> Any:
        return self.plain

    def __deepcopy__(self, memo: object) -> Any:
        return self.plain

    def pin(self) -> Any:
        """Guard that the number stays what it is, and give it without its node."""
        if self.tape.listening:
            self.tape.decide(self, "==", self.plain)
        return self.plain


class TrackedInt(int, Tracked):
    """An ``int`` with a node."""


class TrackedFloat(float, Tracked):
    """A ``float`` with a node."""


def plain(value: Any) -> Any:
    """Take the node off a number."""
    return value.plain if isinstance(value, Tracked) else value


def track(value: int | float, tape: Tape, make: Callable[[], fx.Node]) -> Any:
    """Give ``value`` (an int or a float) a node."""
    return (TrackedInt if isinstance(value, int) else TrackedFloat).of(value, tape, make)


def _arithmetic(name: str, reflected: bool) -> Callable[[Any, Any], Any]:
    compute = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return _foreign(self, compute, other, reflected)
        left, right = (other, self) if reflected else (self, other)
        value = compute(plain(left), plain(right))
        if not self.tape.listening or not isinstance(value, (int, float)):
            return value
        return track(value, self.tape, lambda: self.tape.emit(compute, (left, right)))

    return method


def _foreign(number: Any, compute: Callable[[Any, Any], Any], other: Any, reflected: bool) -> Any:
    """Multiply a list and the like: Python takes the plain number, so it is pinned; tensors answer themselves."""
    if hasattr(type(other), "__torch_function__"):
        return NotImplemented
    value = number.pin()
    return compute(other, value) if reflected else compute(value, other)


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    compare, symbol = getattr(operator, name), SYMBOLS[name]

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        outcome = compare(plain(self), plain(other))
        if self.tape.listening:
            self.tape.decide(self, symbol if outcome else NEGATED[symbol], other)
        return outcome

    return method


def _conversion(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        return getattr(self.pin(), name)(*args)

    return method


def _truth(self: Any) -> bool:
    outcome = bool(plain(self))
    if self.tape.listening:
        self.tape.decide(self, "!=" if outcome else "==", 0)
    return outcome


def _hashed(self: Any) -> int:
    """Pin what is looked up in a dict, a set or a cache."""
    return hash(self.pin())


def _negative(self: Any) -> Any:
    if not self.tape.listening:
        return -plain(self)
    return track(-plain(self), self.tape, lambda: self.tape.emit(operator.neg, (self,)))


def _equip(cls: type) -> None:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        setattr(cls, f"__{name}__", _arithmetic(name, reflected=False))
        setattr(cls, f"__r{name}__", _arithmetic(name, reflected=True))
    for name in SYMBOLS:
        setattr(cls, f"__{name}__", _comparison(name))
    for name in (*CONVERSIONS, "__rdivmod__"):
        setattr(cls, name, _conversion(name))
    for name in BITS if issubclass(cls, int) else ("is_integer",):
        setattr(cls, name, _conversion(name))
    setattr(cls, "__bool__", _truth)  # noqa: B010
    setattr(cls, "__hash__", _hashed)  # noqa: B010
    setattr(cls, "__neg__", _negative)  # noqa: B010


_equip(TrackedInt)
_equip(TrackedFloat)


class _TrackedRange(type):
    """``isinstance(value, range)`` goes on to mean the builtin while ``range`` is replaced."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, BUILTIN_RANGE)

    def __call__(cls, *bounds: Any) -> range:
        return BUILTIN_RANGE(*(bound.pin() if isinstance(bound, TrackedInt) else bound for bound in bounds))


BUILTIN_RANGE = range


class PinningRange(metaclass=_TrackedRange):
    """Stands for ``range`` while a model is recorded: C code reads an int's value without asking, so it is pinned."""
