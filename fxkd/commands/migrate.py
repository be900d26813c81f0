"""``fxkd migrate``: a config of MMRazor or GML, written out as fxkd's YAML."""

import argparse
import sys
from pathlib import Path

from fxkd.errors import FxkdError
from fxkd.migrate import migrate

HELP = "write a config of MMRazor or GML as fxkd's YAML"


def add(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    model = "as timm:NAME, torchvision:NAME or package.module:function: its paths are rewritten to that model's"
    parser.add_argument("file", type=Path, help="the config (.py or .yaml)")
    parser.add_argument("--student", metavar="MODEL", help=f"the student, {model}")
    parser.add_argument("--teacher", metavar="MODEL", help="the teacher, the same way")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the YAML there instead of printing it")
    parser.add_argument("--execute", action="store_true", help="execute the Python file instead of reading it")
    parser.add_argument("--allow-imports", action="store_true", help="import the modules that custom_imports names")


def run(given: argparse.Namespace) -> int:
    """Print or write the YAML; 1 if something could not be mapped, which is listed on the error stream."""
    try:
        done = migrate(
            given.file,
            student=given.student,
            teacher=given.teacher,
            execute=given.execute,
            allow_imports=given.allow_imports,
        )
    except FxkdError as error:
        print(f"fxkd migrate: {error}", file=sys.stderr)
        return 2
    if not done.spec:
        print("\n".join(("fxkd migrate: nothing was found to write:", *done.not_mapped)), file=sys.stderr)
        return 2
    if given.output is None:
        print(done.text(), end="")
    else:
        given.output.write_text(done.text(), encoding="utf-8")
    for problem in done.not_mapped:
        print(f"not mapped: {problem}", file=sys.stderr)
    return 1 if done.not_mapped else 0
