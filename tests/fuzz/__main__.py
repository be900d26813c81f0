"""Compare many random models and specs with plain PyTorch, and print what came of it.

python -m tests.fuzz --examples 2000 --seed 1
"""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.support import torchvision_shim

torchvision_shim.install()

from tests.fuzz.runs import MOST_REFUSED, WrongExample, run  # noqa: E402 (after the shim)


def main(arguments: Sequence[str]) -> int:
    """Run, print the counts, and tell by the exit status whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depth", type=int, default=1, help="how deep blocks lie in blocks")
    parser.add_argument("--first", action="store_true", help="stop at the first that is wrong")
    parser.add_argument("--shrink", action="store_true", help="make the first that is wrong small")
    given = parser.parse_args(arguments)
    start = time.process_time()
    try:
        how = {"goes_on": not (given.shrink or given.first), "shrinks": given.shrink}
        tally = run(given.examples, given.seed, depth=given.depth, **how)
    except WrongExample as error:
        print(error)
        return 1
    print(f"seed {given.seed}, depth {given.depth}, {time.process_time() - start:.0f} CPU seconds")
    print(tally.table())
    return 1 if tally.wrong or tally.refused > MOST_REFUSED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
