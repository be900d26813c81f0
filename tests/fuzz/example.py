"""What one example is, and the strategy that draws it."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from fxkd.errors import SpecWarning
from tests.fuzz.models import NetRecipe
from tests.fuzz.probe import CAPTURED, batch_of, teacher_of
from tests.fuzz.recipes import pairs
from tests.fuzz.specs import specs


@dataclass(frozen=True)
class Call:
    """A step: samples, the mode of the student, and what is changed on it before."""

    size: int
    mode: str = "train"
    change: str = ""


@dataclass(frozen=True)
class Example:
    """All that one comparison needs."""

    student: NetRecipe
    teachers: tuple[NetRecipe, ...]
    spec: Mapping[str, Any]
    calls: tuple[Call, ...]
    input_gradient: bool = False
    return_records: bool = True
    is_lazy: bool = False


@st.composite
def examples(draw: Any, depth: int = 1) -> Example:
    """Draw models, a spec that fits them, and calls."""
    student, teachers = draw(pairs(depth))
    with in_double():
        spec = draw(specs(student.build(), teacher_of(teachers), batch_of(student, CAPTURED, 0)))
    later = st.builds(
        Call,
        st.integers(2, 5),
        st.sampled_from(("train", "train", "train", "train", "eval", "partly")),
        st.sampled_from(("", "", "", "", "", "factor", "flag", "table")),
    )
    modes = st.sampled_from(("train", "train", "train", "train", "eval"))
    calls = Call(CAPTURED, draw(modes)), *draw(st.lists(later, min_size=1, max_size=2))
    flags = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    return Example(student, teachers, spec, tuple(calls), *flags)


@contextmanager
def in_double() -> Iterator[None]:
    """Make float64 the default, so that rounding hides nothing, and do not mind what a spec leaves unused."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SpecWarning)
            yield
    finally:
        torch.set_default_dtype(before)
