"""Plant bugs in a throw-away copy, one at a time, and tell after how many random examples each is found.

python -m tests.fuzz.seeded [--examples 500] [--seed 1] [name ...]
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.seeded_bugs import BUGS, Bug, throw_away_copy

OWN = (
    Bug(
        "second-call-not-delivered",
        "passes/insert_deliveries.py",
        "in zip(given, taken, strict=False)",
        "in list(zip(given, taken, strict=False))[:1]",
        "tests/fuzz/test_fuzz.py",
    ),
    Bug(
        "writes-through-views-not-seen",
        "fxkd/capture/structure.py",
        "t.untyped_storage()._cdata for t",
        "id(t) for t",
        "tests/fuzz/test_fuzz.py",
    ),
)
NAMES = (
    "clone-dropped",
    "deliveries-last-in-first-out",
    "guard-never-fails",
    "record-index-off-by-one",
    "writes-pruned",
    "writes-not-noted",
    "grad-mode-stays-off",
    "one-modes-constants-for-both",
    "random-states-not-put-back",
    "held-attributes-not-compared",
)
CHOSEN = (*(bug for name in NAMES for bug in BUGS if bug.name == name), *OWN)
FOUND = re.compile(r"^wrong, number (\d+): .*?\n(?:.*\n)*?([\w.]*(?:Error|Exception|Differ)\b.*)$", re.MULTILINE)


def found_after(bug: Bug, root: Path, examples: int, number: int) -> tuple[int, str] | None:
    """Plant a bug in the copy and run examples; give the number of the first wrong one and what is wrong."""
    file = root / bug.file
    before = file.read_text()
    file.write_text(bug.planted(root))
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    how = ["--examples", str(examples), "--seed", str(number), "--first"]
    try:
        command = [sys.executable, "-m", "tests.fuzz", *how]
        said = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False).stdout
    finally:
        file.write_text(before)
    found = FOUND.search(said)
    return (int(found[1]), found[2]) if found else None


def main(arguments: Sequence[str]) -> int:
    """Plant the bugs and print the table; tell by the exit status whether all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.seeded", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(bug.name for bug in CHOSEN))
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - {bug.name for bug in CHOSEN}:
        parser.error(f"no bug {', '.join(map(repr, sorted(unknown)))}")
    missed = 0
    with throw_away_copy() as root:
        for bug in [bug for bug in CHOSEN if not given.names or bug.name in given.names]:
            found = found_after(bug, root, given.examples, given.seed)
            missed += found is None
            print(f"{bug.name:<34} {'found after {:4}: {:.90}'.format(*found) if found else 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
