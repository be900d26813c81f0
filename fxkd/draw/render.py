"""Write a picture to a file with the Graphviz program that this machine has."""

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import graphviz
from graphviz.backend import dot_command

from fxkd.errors import DrawError

FORMATS = ("svg", "png", "pdf", "dot")
PROGRAMS = {"dot": FORMATS, "graphviz-pure": ("svg", "png", "dot")}
_swapping = threading.Lock()


def check_suffix(path: Path) -> str:
    """Give the format that the suffix of ``path`` asks for.

    >>> check_suffix(Path("pair.SVG"))
    'svg'
    """
    format = path.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        allowed = ", ".join(f"'.{known}'" for known in FORMATS)
        raise DrawError(f"{str(path)!r}: the suffix says what is written; there is {allowed}")
    return format


def write(picture: graphviz.Digraph, path: Path) -> None:
    """Write ``picture`` to ``path`` in the format of its suffix; a ``.dot`` needs no program."""
    format = check_suffix(path)
    data = picture.source.encode() if format == "dot" else _rendered(picture, format)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise DrawError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _rendered(picture: graphviz.Digraph, format: str) -> bytes:
    program = find_program(format)
    with _runs(program):
        try:
            return bytes(graphviz.pipe("dot", format, picture.source.encode(), quiet=True))
        except (graphviz.CalledProcessError, OSError) as error:
            raise DrawError(f"{program} failed on this graph: {error}") from error


def find_program(format: str) -> str:
    """Find a program that writes ``format``: on PATH, or beside the running Python."""
    found = {name: _which(name) for name in PROGRAMS}
    for name, program in found.items():
        if program and format in PROGRAMS[name]:
            return program
    if any(found.values()):
        raise DrawError(f"graphviz-pure writes no .{format}: `apt install graphviz`, or ask for .svg or .png")
    raise DrawError(
        f'a .{format} needs Graphviz: `apt install graphviz` or `pip install "fxkd[draw]"` (a .dot file needs neither)'
    )


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


@contextmanager
def _runs(program: str) -> Iterator[None]:
    """Let the graphviz package run ``program``; it reads the name from a variable of its module."""
    with _swapping:
        before = dot_command.DOT_BINARY
        dot_command.DOT_BINARY = program
        try:
            yield
        finally:
            dot_command.DOT_BINARY = before
