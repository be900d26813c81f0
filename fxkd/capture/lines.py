"""Where in the model's own code something happens: for guards and messages; and what torch is not to say."""

import dis
import inspect
import linecache
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch

SITE_PACKAGES = sysconfig.get_path("purelib")
TORCH, OWN = Path(torch.__file__).parent, Path(__file__).parents[1]
LIBRARIES = (f"{TORCH}{os.sep}", f"{OWN}{os.sep}", "<frozen", "<eval_with_key")
FAKES = f"{TORCH}{os.sep}_subclasses{os.sep}"
STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def is_library(filename: str) -> bool:
    """Tell whether a file belongs to torch, fxkd or Python itself rather than to a model."""
    in_python = filename.startswith(STANDARD_LIBRARY) and not filename.startswith(SITE_PACKAGES)
    return in_python or filename.startswith(LIBRARIES)


def describe(filename: str, number: int) -> str:
    """Name a line of code and quote it."""
    quoted = linecache.getline(filename, number).strip()
    return f"{filename}:{number}" + (f" ({quoted})" if quoted else "")


def current_line() -> str:
    """Describe the line of a model's code that is running."""
    frame = _model_frame(sys._getframe(1))
    return describe(frame.f_code.co_filename, frame.f_lineno) if frame is not None else "an unknown line"


def _model_frame(frame: FrameType | None) -> FrameType | None:
    """Give the innermost frame, from ``frame`` on, that runs a line of a model's code."""
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def in_fake_kernel() -> bool:
    """Tell whether torch itself is calling, to find what an operation gives on tensors without values."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename, name = frame.f_code.co_filename, frame.f_code.co_name
        if filename.startswith(FAKES):
            return True
        if filename.startswith(str(OWN)) and name == "__torch_function__":  # the operation that the model called
            return False
        frame = frame.f_back
    return False


def name_in_use(function: Callable[..., Any]) -> str | None:
    """Give the path by which the model's code that is running knows ``function``, if by a name of its own module."""
    frame = _model_frame(sys._getframe(1))
    names = frame.f_globals if frame is not None else {}
    found = next((name for name, value in names.items() if value is function), None)
    return f"{names.get('__name__')}.{found}" if found else None


def may_give_nothing(function: Callable[..., Any]) -> bool:
    """Tell whether a function says that it may return None, or has a line that does.

    >>> may_give_nothing(lambda: 1), may_give_nothing(lambda: None)
    (False, True)
    """
    function = inspect.unwrap(function)
    told = str(getattr(function, "__annotations__", {}).get("return", ""))
    if "None" in told or "Optional" in told:
        return True
    code = getattr(function, "__code__", None)
    steps = list(dis.get_instructions(code)) if code is not None else []
    after = pairwise(steps)
    constant = any(a.opname == "LOAD_CONST" and a.argval is None and b.opname == "RETURN_VALUE" for a, b in after)
    return constant or any(step.opname == "RETURN_CONST" and step.argval is None for step in steps)


def raising_line(error: BaseException) -> str:
    """Describe the innermost line of a model's code that ``error`` passed through."""
    lines = [entry for entry in traceback.extract_tb(error.__traceback__) if not is_library(entry.filename)]
    return describe(lines[-1].filename, lines[-1].lineno or 0) if lines else "an unknown line"


def is_misfit(error: BaseException) -> bool:
    """Tell whether torch refused what a model does, such as sizes that do not fit, as it would on values."""
    entries = traceback.extract_tb(error.__traceback__)
    in_torch = bool(entries) and Path(torch.__file__).parent in Path(entries[-1].filename).parents
    return in_torch and not type(error).__module__.startswith("torch._subclasses")


def drawing_line(run: Callable[[], Any], drawn: Callable[[], Any]) -> str:
    """Run once more, watching each line of a model's code, to find what changes the states that ``drawn`` gives."""
    found: list[str] = []
    seen: dict[FrameType, tuple[int, Any]] = {}

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        state = drawn()
        number, before = seen.get(frame, (frame.f_lineno, state))
        if not found and state != before:
            found.append(describe(frame.f_code.co_filename, number))
        seen[frame] = (frame.f_lineno, state)
        return None if found else step

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return None if found or is_library(frame.f_code.co_filename) else step(frame, event, argument)

    previous = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(previous)
    return found[0] if found else "a line inside a library"


@contextmanager
def quiet_log() -> Iterator[None]:
    """Let torch not report what does not run without values: that is what is being asked, or the error says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
