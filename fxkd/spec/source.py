"""Whatever a spec is given as -> a mapping with the keys of a spec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxkd.configs.imports import KEY, import_custom
from fxkd.configs.located import known
from fxkd.configs.python_file import read_python
from fxkd.configs.translate import says_nothing, translate
from fxkd.errors import Problems
from fxkd.spec.sections import OPTIONS, SECTIONS
from fxkd.spec.yaml_file import read_yaml

KEYS = (*SECTIONS, "pairs", *OPTIONS, "data_free")


def read_source(
    source: Any,
    problems: Problems,
    notes: Problems | None = None,
    *,
    allow_imports: bool = False,
    execute: bool = False,
) -> Any:
    """Read a file (YAML, or a config in Python), and say in a spec's keys what it or a mapping says.

    Args:
        source: A path, a mapping, or anything else, which is given back.
        problems: Gets what cannot be read, and the lines of what can.
        notes: Gets what is no part of a spec and was left out.
        allow_imports: Whether modules that ``custom_imports`` names are imported.
        execute: Whether a Python file is executed; without, it is read.

    >>> read_source({"type": "ConfigurableDistiller", "connectors": {}}, Problems())
    {'connectors': {}}
    """
    notes = Problems() if notes is None else notes
    notes.lines = problems.lines
    if not isinstance(source, (str, Path)):
        return _keys(source, problems, notes, allow_imports)
    path, before = Path(source), len(problems.found)
    if path.suffix != ".py":
        given, lines = read_yaml(path, problems, notes)
        problems.lines.update(lines)
        return _keys(given, problems, notes, allow_imports)
    given, lines = read_python(path, problems, notes, execute=execute)
    problems.lines.update(lines)
    spec = _keys(given, problems, notes, allow_imports, KEYS)
    if not spec and len(problems.found) == before:
        problems.found.append(says_nothing(str(path), notes))
    return spec


def _keys(given: Any, problems: Problems, notes: Problems, allow_imports: bool, own_keys: tuple[str, ...] = ()) -> Any:
    if not isinstance(given, Mapping):
        return given
    if KEY in given:
        import_custom(known(given[KEY], KEY, problems), problems, allow_imports)
        given = {key: value for key, value in given.items() if key != KEY}
    try:
        return translate(given, problems, notes, own_keys)
    except RecursionError:
        problems.add("the spec", "is nested without end: something in it holds itself")
        return None
