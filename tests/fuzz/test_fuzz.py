"""Random models under random specs are computed right or refused; a long run of them with ``FXKD_SLOW=1``."""

import pytest

from tests.fuzz.runs import MOST_REFUSED, run


@pytest.mark.parametrize(
    ("count", "depth"),
    [(100, 1), pytest.param(1500, 1, marks=pytest.mark.slow), pytest.param(500, 2, marks=pytest.mark.slow)],
)
def test_random_specs_on_random_models(count: int, depth: int) -> None:
    tally = run(count, seed_of(depth), depth=depth, goes_on=False, shrinks=True)
    print(tally.table())
    assert tally.count >= count
    assert tally.refused <= MOST_REFUSED, tally.table()
    assert tally.kinds["equal"] >= 0.8 * tally.count, tally.table()


def seed_of(depth: int) -> int:
    """Give the same examples every time."""
    return 20 + depth
