"""What is known of a model before it is recorded: how each named function is kept, what is opened, what leaves give."""

from collections import Counter
from collections.abc import Callable, Sequence
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
        functions = [
            ours if ours.outcomes is None else replace(theirs, outcomes=_varied(theirs.outcomes or [], ours.outcomes))
            for ours, theirs in pairs
        ]
        leaves = {leaf: _varied(seen, self.leaves.get(leaf, [])) for leaf, seen in self.varied.leaves.items()}
        return Known(functions, self.opened, leaves, self.draws)

    def alone(self, held: frozenset[int]) -> frozenset[int]:
        """Give the memory in which one tensor alone lives, of all that functions and leaves gave; not what is held."""
        outcomes = [outcome for named in self.functions for outcome in named.outcomes or []]
        outcomes += [outcome for seen in self.leaves.values() for outcome in seen if outcome is not None]
        given = [tensor for outcome in outcomes for tensor in tensors(outcome.value)]
        counts = Counter(memory for tensor in given for memory in storages(tensor))
        return frozenset(memory for memory, count in counts.items() if count == 1) - held


def _varied(outcomes: Sequence[Outcome | None], others: Sequence[Outcome | None]) -> list[Any]:
    """Give other numbers where a function gave the same: Python may reckon with them, or look something up by them."""
    made = list(outcomes)
    for index, (one, other) in enumerate(zip(outcomes, others, strict=False)):
        if one is not None and other is not None:
            same = [kind for kind in (int, float) if _of(kind, one.value) == _of(kind, other.value)]
            made[index] = replace(one, value=_with_others(one.value, same))
    return made


def _of(kind: type, value: Any) -> list[Any]:
    return [leaf for leaf in leaves(value) if type(leaf) is kind]


def _with_others(value: Any, kinds: Sequence[type]) -> Any:
    """Change the numbers that a recording follows: those in tuples, lists and dicts."""
    if type(value) is int and int in kinds:
        return value - 1 if value > 0 else value + 1
    if type(value) is float and float in kinds:
        return value * 0.75 or 0.25
    if type(value) in (tuple, list):
        return type(value)(_with_others(part, kinds) for part in value)
    return {key: _with_others(part, kinds) for key, part in value.items()} if type(value) is dict else value
