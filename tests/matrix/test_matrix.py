"""Every kind of spec is right in every surrounding; all pairs of both with ``FXKD_SLOW=1``."""

from itertools import product

import pytest
import torch
from torch import nn

from tests.matrix.cells import SURROUNDINGS, Pair, compare, default_type, difference
from tests.matrix.page import PAGE, names
from tests.matrix.processes import COLUMN, across
from tests.matrix.specs import ROWS

HERE = [name for name in SURROUNDINGS if name != COLUMN]
IN_TURN = {(row, HERE[index % len(HERE)]) for index, row in enumerate(ROWS)}  # every spec once, all surroundings
MORE = ("logits, own loss on labels", "gradient at a point", "delivery of a module")  # in two processes


def cells() -> list[object]:
    pairs = product(ROWS, HERE)
    return [pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in IN_TURN)) for pair in pairs]


@pytest.mark.parametrize(("row", "surrounding"), cells())
@pytest.mark.usefixtures("fresh_dynamo")
def test_a_spec_in_a_surrounding(row: str, surrounding: str) -> None:
    found = difference(row, surrounding)
    assert isinstance(found, float), found
    assert found <= SURROUNDINGS[surrounding].allowed


@pytest.mark.parametrize("rows", [MORE, pytest.param(tuple(ROWS), marks=pytest.mark.slow)], ids=["some", "all"])
def test_specs_in_two_processes(rows: tuple[str, ...]) -> None:
    found = across(rows)
    assert found.keys() == set(rows)
    assert all(isinstance(cell, float) and cell <= SURROUNDINGS[COLUMN].allowed for cell in found.values()), found


def test_a_difference_is_seen() -> None:
    """A student that is another by the hundred-millionth part is not equal."""
    how = SURROUNDINGS["graph"]
    with default_type(how.dtype):
        pair = Pair.of("attention transfer", how)
        with torch.no_grad():
            pair.plain.student.stem.weight.mul_(1 + 1e-8)
        assert compare(pair, pair.distiller, pair.plain) > how.allowed


def test_what_trains_is_compared() -> None:
    """Gradients of student and connector count, and the statistics of both."""
    how = SURROUNDINGS["graph"]
    with default_type(how.dtype):
        pair = Pair.of("feature, conv connector", how)
        parts = pair.parts["plain"]
        assert isinstance(parts["connectors"]["fit"], nn.Module)
        compare(pair, pair.distiller, pair.plain)
        moved = [name for name, buffer in parts["connectors"].named_buffers() if buffer.count_nonzero()]
    assert len(moved) == 3


def test_the_page_shows_this_matrix() -> None:
    assert names(PAGE.read_text(encoding="utf-8")) == (list(ROWS), list(SURROUNDINGS))
