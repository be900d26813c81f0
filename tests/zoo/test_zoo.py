"""Models that people have: right, or refused for a reason that is true; never wrong without a word."""

import pytest

from tests.zoo.compare import outcomes
from tests.zoo.model import REFUSED, Model
from tests.zoo.zoo import MODELS


def every_model() -> list[object]:
    return [
        pytest.param(model, marks=[pytest.mark.slow] * (not model.quick), id=name) for name, model in MODELS.items()
    ]


@pytest.mark.parametrize("model", every_model())
def test_right_or_refused_for_its_reason(model: Model) -> None:
    every = list(outcomes(model))
    found = [outcome for outcome in every if not outcome.is_expected]
    assert any(outcome.verdict == REFUSED for outcome in every) == (model.expected == REFUSED)
    assert not found, "\n".join(f"{one.mode}, {one.call}: {one.verdict}: {one.message}" for one in found)
