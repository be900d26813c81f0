"""Lines of the user's own code, for guards and messages."""

import random
import sys

import torch

from fxkd.capture.draws import drawn_state
from fxkd.capture.lines import current_line, drawing_line, is_library, name_in_use, raising_line


def test_the_current_line_is_the_users() -> None:
    line = current_line()
    assert line.startswith(f"{__file__}:")
    assert line.endswith("(line = current_line())")


def test_libraries() -> None:
    assert is_library(torch.nn.__file__)
    assert is_library(random.__file__)
    assert is_library("<frozen importlib._bootstrap>")
    assert not is_library(__file__)
    assert not is_library("/somewhere/site-packages/timm/layers.py")


def test_the_raising_line_is_the_innermost_of_the_user() -> None:
    def inner() -> None:
        torch.zeros(2) @ torch.zeros(3, 4)

    try:
        inner()
    except RuntimeError as error:
        assert raising_line(error).endswith("(torch.zeros(2) @ torch.zeros(3, 4))")  # noqa: PT017


def test_the_drawing_line_is_found_in_a_loop() -> None:
    state = random.getstate()

    def run() -> None:
        total = 0.0
        for _ in range(3):
            total += 1
            total *= random.random()

    assert drawing_line(run, drawn_state).endswith("(total *= random.random())")
    random.setstate(state)


def test_the_drawing_line_of_the_last_statement_is_found() -> None:
    def run() -> float:
        return random.random()

    assert drawing_line(run, drawn_state).endswith("(return random.random())")


def test_no_draw_no_line() -> None:
    assert drawing_line(lambda: None, drawn_state) == "a line inside a library"


def test_a_debuggers_trace_is_put_back() -> None:
    def trace(*args: object) -> None:
        return None

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        drawing_line(lambda: None, drawn_state)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(previous)


def test_the_name_by_which_a_module_knows_a_function() -> None:
    assert name_in_use(name_in_use) == f"{__name__}.name_in_use"
    assert name_in_use(print) is None
