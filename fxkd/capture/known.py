"""What is known of a model before it is recorded: how each named function is kept, what is opened, what leaves give."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fxkd.capture.captured import PointName
from fxkd.capture.discover import Outcome
from fxkd.capture.structure import leaves, storages, tensors
from fxkd.points import Place


@dataclass(frozen=True, slots=True)
class Named:
    """A function or method that is a point.

    Args:
        place: Where it is looked up.
        function: The callable behind it, called as a wrapper there is.
        points: The points named on it (its inputs, its outputs).
        outcomes: What the discovery run saw it give, call by call; None if it is opened because it holds points.
        is_replaced: Whether another value will take the place of what it gives, so that it is never run.
    """

    place: Place
    function: Callable[..., Any]
    points: tuple[PointName, ...]
    outcomes: list[Outcome] | None
    is_replaced: bool = False


@dataclass(slots=True)
class Known:
    """What is known of a model before it is recorded.

    Args:
        functions: How each named function is kept.
        opened: The modules whose forward is recorded.
        leaves: What leaves that do not run without values gave on values, call by call, by the module's identity.
        draws: Whether something drew random numbers of Python's or numpy's, so that leaves are watched for it.
        varied: What is known of it on other values and with other draws.
        depends: Whether the program depends on what functions happened to give; None while that is not known.
    """

    functions: list[Named]
    opened: set[int]
    leaves: dict[int, list[Outcome | None]] = field(default_factory=dict)
    draws: bool = False
    varied: "Known | None" = None
    depends: bool | None = None

    def is_unfolded(self, path: str) -> bool:
        """Tell whether a named function is opened."""
        return any(named.place.path == path and named.outcomes is None for named in self.functions)

    def on_other_values(self) -> "Known | None":
        """Give what is known on other values, with all opened that had to be since."""
        if self.varied is None:
            return None
        pairs = zip(self.functions, self.varied.functions, strict=True)
        functions = [ours if ours.outcomes is None else _varied(theirs, ours.outcomes) for ours, theirs in pairs]
        return Known(functions, self.opened, self.varied.leaves, self.draws)

    def alone(self, held: frozenset[int]) -> frozenset[int]:
        """Give the memory in which one tensor alone lives, of all that functions and leaves gave; not what is held."""
        outcomes = [outcome for named in self.functions for outcome in named.outcomes or []]
        outcomes += [outcome for seen in self.leaves.values() for outcome in seen if outcome is not None]
        given = [tensor for outcome in outcomes for tensor in tensors(outcome.value)]
        counts = Counter(memory for tensor in given for memory in storages(tensor))
        return frozenset(memory for memory, count in counts.items() if count == 1) - held


def _varied(named: Named, others: list[Outcome]) -> Named:
    """Give other whole numbers where a function gave the same: Python may look something up by them."""
    outcomes = list(named.outcomes or [])
    for index, (one, other) in enumerate(zip(outcomes, others, strict=False)):
        if _whole(one.value) == _whole(other.value):
            outcomes[index] = replace(one, value=_with_others(one.value))
    return replace(named, outcomes=outcomes)


def _whole(value: Any) -> list[int]:
    return [leaf for leaf in leaves(value) if type(leaf) is int]


def _with_others(value: Any) -> Any:
    """Change the whole numbers that a recording follows: those in tuples, lists and dicts."""
    if type(value) is int:
        return value - 1 if value > 0 else value + 1
    if type(value) in (tuple, list):
        return type(value)(map(_with_others, value))
    return {key: _with_others(part) for key, part in value.items()} if type(value) is dict else value
