"""Values with the line that each part of them is written on, and values that only an execution would give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fxkd.errors import Problems


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands for a value that is not known without executing the file.

    Args:
        why: What stands there instead of a value, such as ``"a call of 'build'"``.
        line: Where, such as ``"config.py:12"``.
    """

    why: str
    line: str


@dataclass(eq=False, slots=True)
class Located:
    """A value and its line; the parts of dicts, lists and tuples are ``Located`` again.

    One object is held by all names that mean it, as in Python: what changes it is seen under each of them.
    """

    value: Any
    line: str

    def data(self) -> Any:
        """Give the value alone."""
        if isinstance(self.value, dict):
            return {key: part.data() for key, part in self.value.items()}
        if isinstance(self.value, (list, tuple)):
            return type(self.value)(part.data() for part in self.value)
        return self.value

    def lines(self, place: str = "") -> Iterator[tuple[str, str]]:
        """Give each place in the value with its line: ``("pairs[0].loss", "config.py:7")``."""
        for name, part in self.parts():
            inner = f"{place}{name}" if isinstance(self.value, (list, tuple)) else f"{place}.{name}".lstrip(".")
            yield inner, part.line
            yield from part.lines(inner)

    def parts(self) -> Iterator[tuple[str, "Located"]]:
        """Give the parts with their names; a position is written ``[0]``."""
        if isinstance(self.value, dict):
            yield from ((str(key), part) for key, part in self.value.items())
        elif isinstance(self.value, (list, tuple)):
            yield from ((f"[{index}]", part) for index, part in enumerate(self.value))

    def holds(self, other: "Located") -> bool:
        """Tell whether the container of ``other`` is this one's or in it: to put this into it would make a circle."""
        seen, waiting = set(), [self]
        while waiting:
            one = waiting.pop()
            if one.value is other.value:
                return True
            if id(one.value) not in seen:
                seen.add(id(one.value))
                waiting.extend(part for _, part in one.parts())
        return False

    def forget(self, unknown: Unknown) -> None:
        """Make the value, and everything in it that could be changed, unknown."""
        for _, part in self.parts():
            part.forget(unknown)
        if isinstance(self.value, (dict, list)):
            self.value = unknown


def locate(data: Any, line: str) -> Located:
    """Give plain data one line.

    >>> locate({"a": [1]}, "config.py:3").data()
    {'a': [1]}
    """
    if isinstance(data, dict):
        return Located({key: locate(part, line) for key, part in data.items()}, line)
    if isinstance(data, (list, tuple)):
        return Located(type(data)(locate(part, line) for part in data), line)
    return Located(data, line)


def relocate(data: Any, lines: Mapping[str, str], line: str, place: str = "") -> Located:
    """Give plain data the lines that its places have; a part without one has that of what holds it.

    >>> relocate({"a": [1, 2]}, {"a[1]": "spec.yaml:3"}, "spec.yaml").value["a"].value[1].line
    'spec.yaml:3'
    """
    line = lines.get(place, line)
    if isinstance(data, dict):
        parts = {key: relocate(part, lines, line, f"{place}.{key}".lstrip(".")) for key, part in data.items()}
        return Located(parts, line)
    if isinstance(data, (list, tuple)):
        return Located(
            type(data)(relocate(part, lines, line, f"{place}[{index}]") for index, part in enumerate(data)), line
        )
    return Located(data, line)


def known(data: Any, where: str, problems: Problems) -> Any:
    """Give ``data`` without its unknown parts, each of which is a problem."""
    if isinstance(data, Unknown):
        refuse(data, where, problems)
        return None
    if isinstance(data, dict):
        parts = {key: known(part, f"{where}.{key}".lstrip("."), problems) for key, part in data.items()}
        return {key: part for key, part in parts.items() if not isinstance(data[key], Unknown)}
    if type(data) in (list, tuple):
        parts_of = [known(part, f"{where}[{index}]", problems) for index, part in enumerate(data)]
        return type(data)(parts_of)
    return data


def refuse(unknown: Unknown, where: str, problems: Problems) -> None:
    """Say why a value is not known and what to do."""
    todo = "write the value out, or let the file be executed ('fxkd migrate --execute' does it)"
    problems.found.append(f"{unknown.line}: {where}: is {unknown.why}, which is not done: {todo}")
    problems.places.append(where)
