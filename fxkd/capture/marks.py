"""What calls of points were given and gave, marked in the graph as it grows."""

import copy
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from fxkd.capture.captured import PointCall, PointName, bundle
from fxkd.capture.guards import guard, guard_form, kind_of
from fxkd.capture.lines import current_line
from fxkd.capture.recording import quiet
from fxkd.capture.structure import parts, storages
from fxkd.capture.tape import CONSTANTS, Tape

alias = torch.ops.aten.alias.default


class Marks:
    """Marks the calls of points on ``tape`` and counts them.

    Args:
        tape: The recording.
        replaced: The points in whose place another value will be put.
    """

    def __init__(self, tape: Tape, replaced: frozenset[PointName] = frozenset()) -> None:
        self.tape, self.replaced = tape, replaced
        self._counts: Counter[PointName] = Counter()

    def bind_call(self, value: Any, node: fx.Node, points: tuple[PointName, ...]) -> Any:
        """Let ``node`` hold what a call gave, a call of each point; give what the program sees of it."""
        for point in points:
            if point.kind.endswith("Outputs"):
                node.meta["calls"] = (*node.meta.get("calls", ()), self._next(point))
                value = self._told_apart(value) if point in self.replaced else value
        self.tape.bind(value, node)
        return self._seen(value, node)

    def _told_apart(self, value: Any) -> Any:
        """Give what is no tensor of the program yet, and no two that are one.

        What will be put in its place is not what the call was given; and one part alone may be replaced.
        """
        met = set[int]()

        def apart(tensor: Tensor) -> Tensor:
            is_other = self.tape.knows(tensor) or id(tensor) in met
            met.add(id(tensor))
            return alias(tensor) if is_other else tensor

        with quiet(self.tape), torch.enable_grad():
            return _rebuilt(value, apart)

    def given(self, points: tuple[PointName, ...], value: Any) -> Any:
        """Give what a call is run on: other values will be given to one whose inputs are replaced."""
        is_replaced = any(point.kind.endswith("Inputs") and point in self.replaced for point in points)
        return self._told_apart(value) if is_replaced else value

    def _seen(self, value: Any, node: fx.Node) -> Any:
        """Give what the program sees of a call's result: its numbers carry nodes, its truths are guarded."""
        graph = self.tape.graph
        if isinstance(value, Tensor) or value is None:
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.tape.number(value, lambda: node)
        if isinstance(value, (bool, str)):
            graph.call_function(guard, (node, "==", value, current_line()))
            return value
        if type(value) is list:
            length = graph.call_function(len, (node,))
            graph.call_function(guard, (length, "==", len(value), current_line()))
        if type(value) in (tuple, list):
            return type(value)(self._seen_part(item, node, index) for index, item in enumerate(value))
        if type(value) is dict:
            return {key: self._seen_part(item, node, key) for key, item in value.items()}
        if not isinstance(value, CONSTANTS):
            self.tape.remember(value, node)
        return value

    def _seen_part(self, value: Any, node: fx.Node, key: Any) -> Any:
        if isinstance(value, Tensor) or value is None:
            return value
        return self._seen(value, self.tape.graph.call_function(operator.getitem, (node, key)))

    def inputs(
        self, points: tuple[PointName, ...], gather: Callable[..., Any], given: tuple[Any, ...]
    ) -> tuple[PointCall, ...]:
        """Let a node ``gather(*given)`` hold what a call was given; say which calls of points these are."""
        calls = tuple(self._next(point) for point in points if point.kind.endswith("Inputs"))
        for call in calls:
            node = self.tape.emit(gather, given)
            node.meta.update(val=gather(*given), storages=storages(given), calls=(call,))
        return calls

    def outputs(self, points: tuple[PointName, ...], value: Any) -> Any:
        """Let the nodes of ``value`` hold what a call of each point gave; give it back."""
        for point in points:
            if point.kind.endswith("Outputs") and point in self.replaced:
                value = self._replaced(value, self._next(point))
            elif point.kind.endswith("Outputs"):
                self.tape.mark(value, self._next(point))
        return value

    def _replaced(self, value: Any, call: PointCall) -> Any:
        """Let all that comes behind an opened call have what it gave from one node, in whose place another will be."""
        node = self.tape.emit(bundle, (value,))
        node.meta.update(val=value, storages=storages(value), calls=(call,))
        seen = self._told_apart(value)
        self.tape.bind(seen, node)
        return self._seen(seen, node)

    def _next(self, point: PointName) -> PointCall:
        self._counts[point] += 1
        return PointCall(point, self._counts[point] - 1)

    def guard_nothing(self, value: Any, node: fx.Node, *, may_be: bool) -> None:
        """Guard what is None, and what may be: the program asks for it and goes another way, and no tensor shows it."""
        if value is None or may_be:
            is_nothing = self.tape.graph.call_function(operator.is_, (node, None))
            self.tape.graph.call_function(guard, (is_nothing, "==", value is None, current_line()))

    def guard_form(self, value: Any, node: fx.Node) -> None:
        """Guard how a result is built, before the program takes it apart."""
        with quiet(self.tape):
            form = kind_of(value)
        self.tape.graph.call_function(guard_form, (node, form, current_line()))


def _rebuilt(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Give a value with its tensors changed, in everything in which the tape finds them."""
    if isinstance(value, Tensor):
        return change(value)
    changed = {key: (part, _rebuilt(part, change)) for part, _, key in parts(value)}
    if all(before is now for before, now in changed.values()):
        return value
    if isinstance(value, tuple):
        made = [now for _, now in changed.values()]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    made = copy.copy(value)
    for key, (_, now) in changed.items():
        if isinstance(value, (list, Mapping)):
            made[key] = now
        else:
            object.__setattr__(made, key, now)
    return made
