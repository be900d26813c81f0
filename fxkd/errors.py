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


class GuardError(FxkdError, RuntimeError):
    """A graph is used on inputs for which a decision taken during capture does not hold."""


class DrawError(FxkdError, RuntimeError):
    """A picture cannot be made on this machine."""


class DeployError(FxkdError, RuntimeError):
    """A student that leaves the house does not equal the one that was trained."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Give the tail of an error message: the nearest known names, or nothing.

    >>> did_you_mean("layer2.1.con", ["layer2.1.conv", "fc"])
    " Did you mean 'layer2.1.conv'?"
    """
    names = {str(name).lower(): str(name) for name in known}
    return offer([names[match] for match in get_close_matches(str(given).lower(), names, n=3)])


def offer(near: Sequence[str]) -> str:
    """Give the tail of an error message that offers names, or nothing where there is none.

    >>> offer(["fc", "head"])
    " Did you mean 'fc' or 'head'?"
    """
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


@dataclass
class Problems:
    """A report that grows: add what is wrong where, raise once at the end."""

    found: list[str] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """Note that ``what`` is wrong at ``where`` (a place such as ``student_recorders.feat.source``)."""
        self.found.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """Raise one ``SpecError`` that holds every problem, if there is one."""
        if self.found:
            raise SpecError(self.found)
