"""The command ``fxkd``, also ``python -m fxkd``: each file of ``fxkd/commands`` is a command of that name."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from fxkd import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit status.

    >>> main([])
    usage: fxkd [-h] ...
    2
    """
    parser, found = argparse.ArgumentParser(prog="fxkd", description="Knowledge distillation for PyTorch."), {}
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for one in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{one.name}")
        module.add(parsers.add_parser(one.name, help=module.HELP, description=module.__doc__))
        found[one.name] = module
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 2
    status: int = found[given.command].run(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
