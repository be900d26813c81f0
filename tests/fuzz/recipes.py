"""Strategies: which random models there are."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.functions import CALLS
from tests.fuzz.models import FORMS, OUTPUTS, NetRecipe, Recipe
from tests.fuzz.operations import FAMILIES, OPERATIONS, SAFE_ON_INPUTS, layers

WIDTHS = {"rows": (4, 6), "images": (4, 6), "sequences": (4, 8)}
AWKWARD = ("rows", "sort", "mask")  # seldom: they make large graphs
USUAL = tuple(sorted(set(OPERATIONS) - set(AWKWARD)))
DRAWS_IN_PYTHON = "drawn"


def steps(family: str, depth: int) -> st.SearchStrategy[tuple[Any, ...]]:
    """Draw one step of a block."""
    operations = st.sampled_from(USUAL)
    kinds = st.sampled_from(sorted(layers(family, 4)))
    choices = [
        st.tuples(st.just("layer"), kinds),
        st.tuples(st.just("op"), operations),
        st.tuples(st.just("layer"), kinds),
        st.tuples(st.just("op"), operations),
        st.tuples(st.just("call"), st.sampled_from(sorted(set(CALLS) - {DRAWS_IN_PYTHON}))),
        st.tuples(st.just("again"), st.integers(0, 2)),
        st.tuples(st.just("residual"), st.integers(0, 3)),
        st.tuples(st.just("branch"), st.sampled_from(sorted(OPERATIONS)), st.sampled_from(sorted(OPERATIONS))),
        st.tuples(st.just("write"), st.integers(0, 3)),
    ]
    if depth:
        choices += [st.tuples(st.just("block"), blocks(family, depth - 1))] * 2
    return st.one_of(choices)


def blocks(family: str, depth: int, most: int = 2) -> st.SearchStrategy[Recipe]:
    """Draw a block, with blocks inside."""
    return st.builds(
        Recipe,
        st.lists(steps(family, depth), min_size=1, max_size=most).map(tuple),
        st.sampled_from(sorted(FORMS, key=lambda form: form != "tensor")),
    )


@st.composite
def nets(draw: Any, family: str, seed: int, width: int, depth: int) -> NetRecipe:
    """Draw a model of a family."""
    return NetRecipe(
        family,
        width,
        draw(blocks(family, depth, 3 + depth)),
        draw(st.sampled_from(sorted(OUTPUTS, key=lambda form: form != "logits"))),
        draw(st.none() | st.sampled_from(SAFE_ON_INPUTS)),
        seed,
    )


@st.composite
def pairs(draw: Any, depth: int) -> tuple[NetRecipe, tuple[NetRecipe, ...]]:
    """Draw a student and its teachers: none, one or two; half of them have the student's width.

    ``depth`` is how deep blocks lie in blocks.
    """
    family = draw(st.sampled_from(sorted(FAMILIES)))
    width, other = draw(st.permutations(WIDTHS[family]))
    count = draw(st.sampled_from((1, 1, 1, 1, 0, 2)))
    student = draw(nets(family, 1, width, depth))
    teachers = tuple(draw(nets(family, 2 + n, draw(st.sampled_from((width, other))), depth)) for n in range(count))
    return student, teachers
