"""Fill the matrix and print it, or write the page of the documentation.

python -m tests.matrix [--write]
"""

import argparse
import sys
from collections.abc import Sequence

from tests.support import torchvision_shim

torchvision_shim.install()

from tests.matrix.page import PAGE, measured, written  # noqa: E402 (after the shim)


def main(arguments: Sequence[str]) -> int:
    """Fill the matrix."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args(arguments)
    text = written(measured())
    if given.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
