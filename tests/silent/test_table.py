"""The table of silent failures in the documentation names tests that are there."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "docs" / "silent-failures.md"


def test_every_row_names_its_test() -> None:
    rows = TABLE.read_text(encoding="utf-8").splitlines()[2:]
    assert len(rows) >= 14
    for row in rows:
        assert row.count("|") == 5, row
        found = re.search(r"`(\w+\.py)::(\w+)`", row)
        assert found, row
        tree = ast.parse((HERE / found[1]).read_text(encoding="utf-8"))
        tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert found[2] in tests, row
