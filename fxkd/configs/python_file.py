"""A config written in Python -> the data in it, and the line of every part; it is read, not executed."""

import ast
import warnings
from pathlib import Path
from typing import Any

from fxkd.configs.bases import BASE, Chain, merge, read_bases, refer
from fxkd.configs.executed import execute_file
from fxkd.configs.expressions import DEFINITIONS, Expressions
from fxkd.configs.located import Located, Unknown
from fxkd.configs.statements import Statements
from fxkd.configs.text_file import read_text
from fxkd.errors import Problems


def read_python(
    path: Path, problems: Problems, notes: Problems | None = None, *, execute: bool = False
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    r"""Read a config and what it inherits: its data, and where each part is written.

    Assignments, literals, ``dict()`` calls, names, texts put together and simple arithmetic are understood. What only
    an execution would give is ``Unknown`` in the data, so that it matters only to who needs it.

    Args:
        path: The file; ``_base_`` in it names files that are read first, with mmengine's rules.
        problems: Gets what cannot be read at all.
        notes: Gets what was left out: bases in other packages, calls that were not made.
        execute: Execute the files instead, as mmengine does. Only for files that you trust.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "config.py")
    >>> _ = path.write_text("tau = 4\nloss = dict(type='KLDivergence', tau=tau)\n")
    >>> data, lines = read_python(path, Problems())
    >>> data["loss"], lines["loss.tau"].rpartition("/")[2]
    ({'type': 'KLDivergence', 'tau': 4}, 'config.py:2')
    """
    try:
        found = _File(problems, Problems() if notes is None else notes, execute).read(path, (), "")
        located = Located(found, str(path))
        return (None, {}) if found is None else (located.data(), dict(located.lines()))
    except RecursionError:
        problems.found.append(f"{path}: is nested without end: something in it holds itself")
        return None, {}


class _File:
    """Reads a file and its bases."""

    def __init__(self, problems: Problems, notes: Problems, execute: bool) -> None:
        self.problems = problems
        self.notes = notes
        self.execute = execute

    def read(self, path: Path, chain: Chain, asked_at: str) -> dict[Any, Located] | None:
        """Give each name of the file, and of those that it inherits from, with its value."""
        if path.suffix != ".py":
            told = "a Python config inherits from Python configs; write its content into one"
            self.problems.found.append(f"{asked_at}: {BASE}: '{path}' has the suffix {path.suffix!r}: {told}")
            return None
        text = read_text(path, "Python", self.problems, asked_at)
        tree = None if text is None else self._parse(text, path)
        if tree is None:
            return None
        base = self._bases(tree, (*chain, path))
        if self.execute:
            executed = execute_file(tree, path, base, self.problems)
            names = {name: refer(value, base) for name, value in executed.items()}
        else:
            names = Statements(str(path), base, self.notes).run(tree)
        own = {name: value for name, value in names.items() if _is_value(name, value)}
        return merge(own, base, self.problems)

    def _parse(self, text: str, path: Path) -> ast.Module | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Windows paths with single backslashes
                return ast.parse(text, str(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # also a null byte, very deep nesting
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            reason = error.msg if isinstance(error, SyntaxError) else error
            self.problems.found.append(f"{path}{line}: is not Python: {reason}")
        return None

    def _bases(self, tree: ast.Module, chain: Chain) -> dict[Any, Located]:
        given = [node for node in tree.body if isinstance(node, ast.Assign) and _assigns(node, BASE)]
        if not given:
            return {}
        value = Expressions(str(chain[-1]), {}).evaluate(given[-1].value)
        return read_bases(value, self.read, chain, self.problems, self.notes)


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _is_value(name: str, value: Located) -> bool:
    hidden = name.startswith("__") or name == BASE
    return not hidden and not (isinstance(value.value, Unknown) and value.value.why in DEFINITIONS)
