"""Models that people have: right, or refused for a reason that is true; never wrong without a word.

Every run compares the traps, and of each family a third in a reduced form: one mode and one further call, which change
from model to model. All modes and calls of all models are compared with ``FXKD_SLOW=1``.
"""

import pytest

from tests.zoo.compare import outcomes
from tests.zoo.model import MODES, REFUSED, Model
from tests.zoo.third import THIRD, by_rule, third
from tests.zoo.zoo import MODELS

TRAPS = "traps"
FAMILIES = {model.family for model in MODELS.values()} - {TRAPS}


def every_model() -> list[object]:
    return [
        pytest.param(model, marks=[pytest.mark.slow] * (model.family != TRAPS), id=name)
        for name, model in MODELS.items()
    ]


@pytest.mark.parametrize("model", every_model())
def test_right_or_refused_for_its_reason(model: Model) -> None:
    check(model)


@pytest.mark.parametrize("model", third(), ids=lambda model: f"{model.name}-{model.modes[0]}")
def test_a_third_is_right_or_refused_for_its_reason(model: Model) -> None:
    check(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", third(), ids=lambda model: model.name)
def test_the_points_of_the_third_are_those_of_the_rule(model: Model) -> None:
    assert model.recorders == by_rule(model)


def check(model: Model) -> None:
    every = list(outcomes(model))
    found = [outcome for outcome in every if not outcome.is_expected]
    assert not found, "\n".join(f"{one.mode}, {one.call}: {one.verdict}: {one.message}" for one in found)
    assert any(outcome.verdict == REFUSED for outcome in every) == (model.expected == REFUSED)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_third_of_a_family_is_in_the_third(family: str) -> None:
    those = [model for model in third() if model.family == family]
    assert len({model.name for model in those}) == len(those) == len(THIRD[family])
    assert all(model.recorders for model in those), "python -m tests.zoo.third chooses points for them"
    assert 3 * len(those) >= sum(model.family == family for model in MODELS.values())
    both = {mode for model in those for mode in MODELS[model.name].modes} == set(MODES) and len(those) > 1
    assert not both or {model.modes[0] for model in those} == set(MODES)


def test_a_third_of_all_in_every_form() -> None:
    assert THIRD.keys() == FAMILIES
    calls = {name for model in MODELS.values() for name in model.further if model.family != TRAPS}
    common = {name for name in calls if sum(name in model.further for model in MODELS.values()) >= 10}
    assert common <= {name for model in third() for name in model.further}
