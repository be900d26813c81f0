"""How a distillation is run, beside what it compares: who trains, in which mode, from which checkpoints, until when."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from fxkd.errors import Problems, did_you_mean
from fxkd.spec.frozen import frozen
from fxkd.spec.vocabulary import described_type, fits

TEACHER_MODES = ("eval", "train", "norm_eval", "own")


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """The options of a distillation, under MMRazor's names where it has them.

    Args:
        teacher_trainable: Whether the teacher trains too, on its own loss and on what reaches it from the others.
        teacher_gradients: Whether gradients flow through a frozen teacher, to inputs that something else made.
        teacher_mode: The mode of the teacher if ``prepare`` is given none: see there.
        teacher_ckpt: File with the teacher's weights, or name -> file of several teachers.
        student_trainable: Whether gradients reach the student; without, only connectors and losses train.
        student_ckpt: File with the student's weights.
        pretrained: File with the state of a whole distiller, of which connectors and losses are taken.
        stop_epoch: Number of ``step()`` calls after which the distillation ends.
        self_distillation: Whether the student is its own teacher: ``prepare`` then takes ``teacher=None``.
        data_free: What distillation without data needs beside: a generator, its own spec, the order of the steps.
    """

    teacher_trainable: bool = False
    teacher_gradients: bool = False
    teacher_mode: str | None = None
    teacher_ckpt: str | Mapping[str, str] | None = None
    student_trainable: bool = True
    student_ckpt: str | None = None
    pretrained: str | None = None
    stop_epoch: int | None = None
    self_distillation: bool = False
    data_free: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Keep copies of the mappings that nobody can change."""
        for name in ("teacher_ckpt", "data_free"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


OPTIONS = tuple(field.name for field in fields(Algorithm))


def read_algorithm(given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Read the options that are in ``given``; note each that has a value it cannot have."""
    types, found = get_type_hints(Algorithm), {name: given[name] for name in OPTIONS if name in given}
    for name, value in list(found.items()):
        if not fits(value, types[name]):
            problems.add(name, f"is {value!r}; it must be {described_type(types[name])}")
            del found[name]
    mode = found.get("teacher_mode")
    if mode is not None and mode not in TEACHER_MODES:
        there = ", ".join(map(repr, TEACHER_MODES))
        problems.add("teacher_mode", f"is {mode!r}; there is {there}." + did_you_mean(mode, TEACHER_MODES))
    if found.get("stop_epoch") is not None and found["stop_epoch"] < 0:
        problems.add("stop_epoch", f"is {found['stop_epoch']}; give the number of epochs that are distilled")
    if found.get("self_distillation") and (found.get("teacher_trainable") or found.get("teacher_ckpt")):
        problems.add("self_distillation", "is true: the student is its own teacher, so leave out the teacher's options")
    return found
