"""Numbers that move while a distillation goes on: weights and temperatures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxkd.errors import SpecError, did_you_mean

Curve = Callable[[float, float, float], float]  # start, end, how far from 0 to 1 -> value

CURVES: dict[str, Curve] = {
    "linear": lambda start, end, part: start + (end - start) * part,
    "cosine": lambda start, end, part: end + (start - end) * (1 + math.cos(math.pi * part)) / 2,
}
KEYS = {
    "constant": {"value"},
    "linear": {"start", "end", "steps", "begin"},
    "cosine": {"start", "end", "steps", "begin"},
    "step": {"start", "factor", "every", "at"},
}
NEEDED = {
    "constant": {"value"},
    "linear": {"start", "end", "steps"},
    "cosine": {"start", "end", "steps"},
    "step": {"start", "factor"},
}
COUNTS = ("steps", "begin", "every")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number as a function of how often ``step()`` was called.

    ``{"schedule": "constant", "value": v}``; ``{"schedule": "linear" or "cosine", "start": a, "end": b, "steps": n,
    "begin": 0}``, which stays at ``a`` for ``begin`` steps and arrives at ``b`` after ``n`` more; ``{"schedule":
    "step", "start": a, "factor": f, "every": n}`` or with ``"at": [n, m]``, which multiplies by ``f``; or any function
    of the number of steps.

    >>> schedule = Schedule.read({"schedule": "linear", "start": 4, "end": 1, "steps": 3})
    >>> [schedule.at(step) for step in range(5)]
    [4.0, 3.0, 2.0, 1.0, 1.0]
    >>> Schedule.read({"schedule": "step", "start": 1, "factor": 0.5, "every": 2}).at(4)
    0.25
    """

    given: Any

    @classmethod
    def read(cls, given: Any) -> "Schedule":
        """Read a schedule from a mapping or a function.

        Raises:
            SpecError: It has no such kind, lacks a key or has one too many, a value cannot be, or it gives no number.
        """
        if not callable(given):
            _check(given)
            return cls(given)
        error = _refused(given)
        if error is not None:
            what = f"for 0 it raises {type(error).__name__}: {error}"
            raise SpecError([f"a function as schedule gives a number for a number of steps; {what}"]) from error
        return cls(given)

    def at(self, step: int) -> float:
        """Give the value after ``step`` steps."""
        if callable(self.given):
            return float(self.given(step))
        options = {key: value for key, value in self.given.items() if key != "schedule"}
        if self.given["schedule"] == "constant":
            return float(options["value"])
        if self.given["schedule"] == "step":
            return float(options["start"]) * float(options["factor"]) ** _drops(options, step)
        return _on(CURVES[self.given["schedule"]], step, **options)

    @property
    def last(self) -> float:
        """Where it arrives, as far as that can be told; of a function, the first value."""
        given: Any = {} if callable(self.given) else self.given
        return self.at(given.get("begin", 0) + given.get("steps", 0) + max(given.get("at", ()), default=0))


def is_schedule(value: Any) -> bool:
    """Tell whether a value in the place of a number is a schedule."""
    return (isinstance(value, Mapping) and "schedule" in value) or (
        callable(value) and not isinstance(value, (type, nn.Module))
    )


def _refused(function: Callable[[int], Any]) -> Exception | None:
    """Give what is raised where a function is asked for a number and gives none."""
    try:
        float(function(0))
    except Exception as error:  # noqa: BLE001 (a function of the user's)
        return error
    return None


def _moves(name: str, value: Any) -> bool:
    """Tell whether an option is a schedule; a function that gives no number is an option like any other."""
    return is_schedule(value) and (name == "loss_weight" or not callable(value) or _refused(value) is None)


def _drops(options: Mapping[str, Any], step: int) -> int:
    if "every" in options:
        return step // int(options["every"])
    return sum(step >= place for place in options["at"])


def _on(curve: Curve, step: int, *, start: float, end: float, steps: int, begin: int = 0) -> float:
    return float(curve(start, end, min(1.0, max(0.0, (step - begin) / steps))))


def _check(given: Mapping[str, Any]) -> None:
    kind = given["schedule"]
    if not isinstance(kind, str) or kind not in KEYS:
        there = ", ".join(map(repr, KEYS))
        raise SpecError([f"no schedule is called {kind!r}; there is {there}." + did_you_mean(str(kind), KEYS)])
    keys, has = {str(key) for key in given} - {"schedule"}, ", ".join(map(repr, sorted(KEYS[kind])))
    for key in sorted(keys - KEYS[kind]):
        raise SpecError([f"the schedule {kind!r} has no {key!r}; it takes {has}." + did_you_mean(key, KEYS[kind])])
    for key in sorted(NEEDED[kind] - keys):
        raise SpecError([f"the schedule {kind!r} needs {key!r}; it takes {has}"])
    if kind == "step" and ("every" in given) == ("at" in given):
        raise SpecError(["the schedule 'step' needs either 'every' or 'at'"])
    for key in sorted(keys - {"at"}):
        _check_number(key, given[key])
    places = given.get("at", [])
    if not isinstance(places, (list, tuple)) or not all(type(place) is int for place in places):
        raise SpecError([f"the schedule's 'at' is {places!r}; give a list of steps"])


def _check_number(key: str, value: Any) -> None:
    is_count, lowest = key in COUNTS, 0 if key == "begin" else 1
    if isinstance(value, bool) or not isinstance(value, int if is_count else (int, float)):
        raise SpecError([f"the schedule's {key!r} is {value!r}; give a {'whole ' if is_count else ''}number"])
    if is_count and value < lowest:
        raise SpecError([f"the schedule's {key!r} is {value!r}; it is {lowest} or more"])


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A number of a module that a schedule moves; it becomes a tensor, so that nothing is compiled anew.

    Args:
        module: What holds the number.
        name: Under which attribute.
        schedule: Its course.
    """

    module: nn.Module
    name: str
    schedule: Schedule

    def put(self, step: int) -> None:
        """Set the number to its value after ``step`` steps; the first time, make a buffer of it."""
        value = self.schedule.at(step)
        if self.name in self.module._buffers:
            getattr(self.module, self.name).fill_(value)
            return
        delattr(self.module, self.name)
        self.module.register_buffer(self.name, torch.tensor(value, dtype=torch.float32), persistent=False)


def first_values(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Schedule]]:
    """Give a config with each schedule replaced by its first value, and the schedules.

    >>> config, schedules = first_values({"type": "L1Loss", "loss_weight": lambda step: 2.0 - step})
    >>> config, list(schedules)
    ({'type': 'L1Loss', 'loss_weight': 2.0}, ['loss_weight'])
    """
    schedules = {key: Schedule.read(value) for key, value in config.items() if _moves(key, value)}
    return {**config, **{key: schedule.at(0) for key, schedule in schedules.items()}}, schedules
