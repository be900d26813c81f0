"""The code on the pages is run, page by page, each in an empty folder.

A block whose first line is a comment with the name of a file (``# spec.yaml``, ``# net.py``) is that file.
"""

import os
import re
import sys
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from sybil import Document, Example, Region, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

collect_ignore = ["conf.py", "pictures.py", "reference.py", "_build"]

FILE = re.compile(r"# (\w+\.\w+)\n")


def begin(namespace: dict[str, Any]) -> None:
    folder = TemporaryDirectory()
    namespace["_before"], namespace["_folder"], namespace["_threads"] = Path.cwd(), folder, torch.get_num_threads()
    torch.set_num_threads(1)  # all tensors are small
    os.chdir(folder.name)
    sys.path.insert(0, folder.name)
    torch.manual_seed(0)


def end(namespace: dict[str, Any]) -> None:
    folder = namespace["_folder"]
    os.chdir(namespace["_before"])
    torch.set_num_threads(namespace["_threads"])
    sys.path.remove(folder.name)
    for path in Path(folder.name).glob("*.py"):
        sys.modules.pop(path.stem, None)
    folder.cleanup()


def write_file(example: Example) -> None:
    """Write a block to the file that its first line names."""
    text = str(example.parsed)
    name = FILE.match(text)
    assert name, "a comment with the name of the file is missing"
    Path(name[1]).write_text(text)


def python(document: Document) -> Iterator[Region]:
    """Find Python blocks: examples and code are run, files are written."""
    for region in PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | NORMALIZE_WHITESPACE)(document):
        if FILE.match(str(region.parsed)):
            region.evaluator = write_file
        yield region


pytest_collect_file = Sybil(
    parsers=[python, CodeBlockParser(language="yaml", evaluator=write_file)],
    patterns=["*.md"],
    setup=begin,
    teardown=end,
).pytest()
