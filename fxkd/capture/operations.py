"""Named operations while a model is recorded: what they give is marked as it is made."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fxkd.capture.captured import PointCall, PointName
from fxkd.capture.tape import Tape
from fxkd.operations import gives_tensor, operation_name


class Operations:
    """Marks on ``tape`` the calls of the operations that are points.

    Args:
        tape: The recording.
        points: The point of each operation, by the path of the module and the operation's name.
    """

    def __init__(self, tape: Tape, points: Mapping[tuple[str, str], PointName]) -> None:
        self.tape, self.points = tape, points
        self._counts: Counter[PointName] = Counter()

    def done(self, function: Any, value: Any) -> None:
        """Take note that the module that runs called ``function``, which gave ``value``."""
        point = self.points.get((self.tape.graph.inside, operation_name(function))) if self.points else None
        if point is not None and gives_tensor(value):
            self.tape.mark(value, PointCall(point, self._counts[point]))
            self._counts[point] += 1
