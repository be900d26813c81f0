"""One error family: every message says what was asked and where, what there is, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches


class FxkdError(Exception):
    """Base of every error that fxkd raises on purpose."""


class SpecError(FxkdError, ValueError):
    """A spec cannot mean anything; holds all its problems, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return f"{len(self.problems)} problems:" + "".join(f"\n  - {problem}" for problem in self.problems)


class PointError(FxkdError, LookupError):
    """A path names no place in a model, or a place that was never called."""


class CaptureError(FxkdError, RuntimeError):
    """A model does something while it runs that a graph cannot hold."""


class DifferenceError(CaptureError):
    """A graph does not give what the models give."""


class GuardError(FxkdError, RuntimeError):
    """A graph is used on inputs for which a decision taken during capture does not hold."""


class DrawError(FxkdError, RuntimeError):
    """A picture cannot be made on this machine."""


class DeployError(FxkdError, RuntimeError):
    """A student that leaves the house does not equal the one that was trained."""


class SpecWarning(UserWarning):
    """A spec means something, but probably not what its writer meant."""


def near_names(given: object, known: Iterable[str]) -> list[str]:
    """Give the known names that are spelt like ``given``, the nearest first; case does not count.

    >>> near_names("KLDivergense", ["L2Loss", "KLDivergence"])
    ['KLDivergence']
    """
    names = {str(name).lower(): str(name) for name in known}
    return [names[match] for match in get_close_matches(str(given).lower(), names, n=3)]


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Give the tail of an error message: the nearest known names, or nothing.

    >>> did_you_mean("layer2.1.con", ["layer2.1.conv", "fc"])
    " Did you mean 'layer2.1.conv'?"
    """
    return offer(near_names(given, known))


def offer(near: Sequence[str]) -> str:
    """Give the tail of an error message that offers names, or nothing where there is none.

    >>> offer(["fc", "head"])
    " Did you mean 'fc' or 'head'?"
    """
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


@dataclass
class Problems:
    """A report that grows: add what is wrong where, raise once at the end.

    Args:
        lines: Where places are written, such as ``spec.yaml:12``; a place that is not there stands where the part that
            holds it does.
        found: What was added.
        places: Where.
    """

    lines: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """Note that ``what`` is wrong at ``where`` (a place such as ``student_recorders.feat.source``)."""
        line = self.line(where)
        self.found.append(f"{line}: {where}: {what}" if line else f"{where}: {what}")
        self.places.append(where)

    def at(self, where: str) -> bool:
        """Tell whether a problem was noted at ``where`` or in a part of it: what follows from it is no second one."""
        return any(place == where or place.startswith((f"{where}.", f"{where}[")) for place in self.places)

    def line(self, where: str) -> str:
        """Give the file and line at which ``where``, or the part that holds it, is written; or nothing."""
        while where and where not in self.lines:
            where = where[: max(where.rfind("."), where.rfind("["), 0)]
        return self.lines.get(where, "")

    def stands_at(self, where: str, origin: str) -> None:
        """Note that ``where`` was made out of what is written at ``origin``."""
        if self.line(origin):
            self.lines.setdefault(where, self.line(origin))

    def raise_if_any(self) -> None:
        """Raise one ``SpecError`` that holds every problem, if there is one."""
        if self.found:
            raise SpecError(self.found)
