"""Lists, dicts and the like that a named function is given, and may fill in place."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxkd.capture.contents import CONTAINERS, content_of, refill, same_content, view_of
from fxkd.capture.structure import parts


@dataclass(frozen=True, slots=True)
class Boxes:
    """What one call did to the containers that it was given.

    Args:
        filled: The kinds of those in which it changed something, but for those that it gave back.
        own: Which of them it gave back itself: where in the result (None: it is the result), and the place among all.
    """

    filled: tuple[str, ...] = ()
    own: tuple[tuple[int | None, int], ...] = ()

    def put_back(self, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Give ``value`` with the program's own containers in the places of those that it gave back, filled alike."""
        if not self.own:
            return value
        given, found = boxes(args, kwargs), list(value) if self.own[0][0] is not None else [value]
        for place, index in self.own:
            refill(given[index], content_of(found[place or 0]))
            found[place or 0] = given[index]
        return tuple(found) if self.own[0][0] is not None else found[0]


class Watched:
    """The containers among some arguments, as they are before a call."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._before = [(box, content_of(box)) for box in boxes(args, kwargs)]

    def undo(self) -> None:
        """Let them hold what they held."""
        for box, content in self._before:
            if not _same(box, content):
                refill(box, content)

    def done(self, value: Any) -> Boxes:
        """Say what the call did, which gave ``value``."""
        places = {id(box): index for index, (box, _) in enumerate(self._before)}
        results = list(enumerate(value)) if type(value) is tuple else [(None, value)]
        own = tuple((place, places[id(part)]) for place, part in results if id(part) in places and _is_plain(part))
        kept = {index for _, index in own}
        filled = [box for i, (box, content) in enumerate(self._before) if i not in kept and not _same(box, content)]
        return Boxes(tuple(sorted({type(box).__name__ for box in filled})), own)


def boxes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """List the containers among some arguments, and those inside them, each once."""
    found: dict[int, Any] = {}
    _collect(found, (args, *kwargs.values()))
    return list(found.values())


def _collect(found: dict[int, Any], value: Any) -> None:
    if id(value) in found:
        return
    if isinstance(value, CONTAINERS) or _is_object(value):
        found[id(value)] = value
    for part, _, _ in parts(value):
        _collect(found, part)


def _is_object(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_plain(value: Any) -> bool:
    return type(value) in (list, dict) or (_is_object(value) and not isinstance(value, CONTAINERS))


def _same(box: Any, content: Any) -> bool:
    return same_content(view_of(box), content)
