"""Every bug that can be planted is still one edit away, and planting works; all of them with ``FXKD_SLOW=1``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seeded_bugs import BUGS, ROOT, Bug, is_caught, judge, main, plant, run_tests, throw_away_copy

EVERY = pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
CHEAP = next(bug for bug in BUGS if bug.name == "loss-weight-ignored")
FEW = "tests/test_registry.py"  # which are soon green
MISSING = Bug("missing", "setup.py", "no such text", "", CHEAP.tests)


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    with throw_away_copy() as root:
        yield root


@EVERY
def test_a_bug_can_be_planted(bug: Bug) -> None:
    planted = bug.planted(ROOT)
    compile(planted, bug.file, "exec")
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse((ROOT / bug.file).read_text()))
    assert all((ROOT / test).is_file() for test in bug.tests.split())


def test_names_differ() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_a_planted_bug_is_caught_and_taken_out_again(copy: Path) -> None:
    before = (copy / CHEAP.file).read_text()
    verdict = plant(CHEAP, copy)
    assert verdict.kind == "caught", verdict
    assert verdict.by.startswith(CHEAP.tests + "::")
    assert (copy / CHEAP.file).read_text() == before == (ROOT / CHEAP.file).read_text()


def test_what_no_test_sees_survives(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harmless = Bug("harmless", CHEAP.file, "from torch import ", "NOBODY_READS = 1\nfrom torch import ", FEW)
    assert not is_caught(harmless, copy)
    assert "SURVIVED" in capsys.readouterr().out


def test_what_does_not_import_is_not_caught(copy: Path) -> None:
    broken = Bug("broken", CHEAP.file, "from torch import ", "import no_such_module\nfrom torch import ", CHEAP.tests)
    assert plant(broken, copy).kind == "broken"


def test_a_text_that_is_gone_is_told(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_caught(MISSING, copy)
    assert "its text is 0 times in setup.py, not once: 'no such text'" in capsys.readouterr().out


def test_a_failure_of_a_test_is_told_from_other_ends() -> None:
    assert judge(1, "FAILED a.py::b - ImportError: x")[0] == "broken"
    assert judge(1, "ERROR a.py::b - RuntimeError: in a fixture")[0] == "broken"
    assert judge(4, "ERROR: file or directory not found: a.py")[0] == "broken"
    assert judge(1, "FAILED a.py::b[c]\n1 failed") == ("caught", "a.py::b[c]")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-bug"])
    assert "no bug 'no-such-bug'; there is clone-dropped" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("tests", dict.fromkeys(bug.tests for bug in BUGS))
def test_without_a_bug_the_tests_are_green(tests: str, copy: Path) -> None:
    assert run_tests(tests, copy).kind == "green"


@pytest.mark.slow
@EVERY
def test_every_bug_is_caught(bug: Bug, copy: Path) -> None:
    assert plant(bug, copy).kind == "caught"
