"""Whatever a spec is given as -> a mapping with the keys of a spec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxkd.configs.imports import KEY, import_custom
from fxkd.configs.python_file import read_python
from fxkd.configs.reading import Reading
from fxkd.configs.translate import of_file, translate
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
    given, path = source, None
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix == ".py":
            given, lines = read_python(path, problems, notes, execute=execute)
        else:
            given, lines = read_yaml(path, problems, notes)
        problems.lines.update(lines)
    if not isinstance(given, Mapping):
        return given
    if KEY in given:
        import_custom(given[KEY], problems, allow_imports)
    try:
        if path is not None and path.suffix == ".py":
            notes.lines = problems.lines
            return of_file(given, str(path), KEYS, Reading(problems, notes))
        return translate(given, problems, notes)
    except RecursionError:
        problems.add("the spec", "is nested without end: something in it holds itself")
        return None
