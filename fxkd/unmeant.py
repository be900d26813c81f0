"""Warn of what a spec says and its writer probably does not mean; each remark once."""

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from fxkd.errors import SpecWarning
from fxkd.spec import Reference, Spec, StudentLoss

LIBRARIES = tuple(f"{Path(path).parent}{os.sep}" for path in (__file__, torch.__file__))

SIZES = re.compile(r"\([\d, ]*\)")


class Warner:
    """Turn remarks into warnings that name the caller's own line, each remark once, whatever the sizes in it.

    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     warner = Warner()
    ...     warner(["inputs: 'mask' is read by no loss", "inputs: 'mask' is read by no loss"])
    >>> [str(warning.message) for warning in caught]
    ["inputs: 'mask' is read by no loss"]
    """

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, remarks: Iterable[str]) -> None:
        for remark in remarks:
            about = SIZES.sub("", remark)
            if about not in self.said:
                self.said.add(about)
                warnings.warn(remark, SpecWarning, stacklevel=_depth())


def _depth() -> int:
    """Count the calls from ``Warner`` up to the first that is neither fxkd's nor torch's."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame, depth = frame.f_back, depth + 1
    return depth


def unmeant(spec: Spec, *, return_records: bool = False) -> list[str]:
    """List what a spec holds without use, as far as no model is needed to see it.

    Args:
        spec: A spec.
        return_records: Whether records are given to the caller, so that none is without use.

    >>> recorders = {"fc": {"type": "ModuleOutputs", "source": "fc"}}
    >>> unmeant(Spec.load({"student_recorders": recorders}))[0]
    'student_recorders.fc: no loss reads this record; map it to a loss, take it out, or give return_records=True'
    """
    references = [reference for mapping in spec.loss_forward_mappings.values() for reference in mapping.values()]
    unread = [] if return_records else list(_unread(spec, references))
    return [*unread, *_unused(spec, references)]


def _unread(spec: Spec, references: list[Reference]) -> Iterator[str]:
    read = {(reference.from_student, name) for reference in references for name in reference.recorders}
    for is_student, section in ((True, "student_recorders"), (False, "teacher_recorders")):
        for name, recorder in getattr(spec, section).items():
            keeps_whole = recorder.type.startswith(("Function", "Method"))  # naming it may be all that is meant
            if (is_student, name) not in read and not keeps_whole:
                yield (
                    f"{section}.{name}: no loss reads this record; map it to a loss, take it out, or give "
                    "return_records=True"
                )


def _unused(spec: Spec, references: list[Reference]) -> Iterator[str]:
    used = {reference.connector for reference in references}
    for name in spec.connectors:
        if name not in used:
            yield (
                f"connectors.{name}: no argument of a loss goes through it, so its parameters never train; write "
                f"'connector: {name}' where it belongs in loss_forward_mappings, or take it out"
            )
    read = {reference.from_input for reference in references}
    if isinstance(spec.student_loss, StudentLoss):
        read |= {source["from_input"] for source in spec.student_loss.args.values() if source != "from_output"}
    for name in spec.inputs:
        if name not in read:
            yield (
                f"inputs: no loss reads {name!r}, and no model is given it; map it with 'from_input: {name}', or take "
                "it out so that the models get it"
            )
