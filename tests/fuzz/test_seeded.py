"""The bugs for the fuzzer are one edit away; that random examples find each of them with ``FXKD_SLOW=1``."""

import ast

import pytest

from tests.fuzz.seeded import CHOSEN, FOUND, NAMES, OWN, found_after
from tests.seeded_bugs import ROOT, Bug, throw_away_copy

EVERY = pytest.mark.parametrize("bug", CHOSEN, ids=[bug.name for bug in CHOSEN])


@EVERY
def test_a_bug_can_be_planted(bug: Bug) -> None:
    planted = bug.planted(ROOT)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse((ROOT / bug.file).read_text()))


def test_names_differ_and_are_known() -> None:
    assert len({bug.name for bug in CHOSEN}) == len(CHOSEN) == len(NAMES) + len(OWN) >= 10


def test_what_a_run_says_is_read() -> None:
    said = "wrong, number 12: Example(...)\n  File x\n    line\nAssertionError: call 0['loss']: off\n"
    found = FOUND.search(said)
    assert found is not None
    assert (int(found[1]), found[2]) == (12, "AssertionError: call 0['loss']: off")
    assert FOUND.search("seed 1, depth 1, 3 CPU seconds\n   100 examples\n   100 100.00%  equal") is None


@pytest.mark.slow
@EVERY
def test_every_bug_is_found(bug: Bug) -> None:
    with throw_away_copy() as root:
        assert found_after(bug, root, 500, 1) is not None
