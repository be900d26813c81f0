"""A config of another tool, written out as fxkd's YAML, with a list of what could not be said in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fxkd.errors import Problems
from fxkd.named_model import named_model
from fxkd.rename import rename_paths
from fxkd.spec.source import KEYS, read_source
from fxkd.spec.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrated:
    """What a config became.

    Args:
        spec: The keys of a spec.
        notes: What has its place elsewhere (models, data, optimisers) and was left out, and what changed its form.
        not_mapped: What has no meaning in fxkd, or must be decided by a person.
    """

    spec: Mapping[str, Any]
    notes: tuple[str, ...]
    not_mapped: tuple[str, ...]

    def text(self) -> str:
        """Give the YAML, with what is not in it as comments before."""
        told = [("not mapped", self.not_mapped), ("note", self.notes)]
        lines = [f"# {what}: {' '.join(one.split())}" for what, listed in told for one in listed]
        data = yaml.safe_dump(dict(self.spec), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        return "\n".join([*lines, data])


def migrate(
    source: str | Path,
    *,
    student: str | None = None,
    teacher: str | None = None,
    execute: bool = False,
    allow_imports: bool = False,
) -> Migrated:
    """Read a config and say it in fxkd's keys; what cannot be said is listed, and never stops the rest.

    Args:
        source: A Python config of MMRazor or GML, or a YAML file.
        student: A model whose names the student's paths are rewritten to: see ``named_model``.
        teacher: The same for the teacher.
        execute: Whether the Python file is executed; without, it is read.
        allow_imports: Whether modules that ``custom_imports`` names are imported.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "config.py")
    >>> _ = path.write_text("student_recorders = dict(fc=dict(type='ModuleOutputs', source='head.fc'))")
    >>> print(migrate(path).text())
    student_recorders:
      fc: {type: ModuleOutputs, source: head.fc}
    """
    problems, notes = Problems(), Problems()
    given = read_source(source, problems, notes, execute=execute, allow_imports=allow_imports)
    lost: list[str] = []
    spec = _in_order(_plain(given, "", lost)) if isinstance(given, Mapping) else {}
    for side, name in (("student", student), ("teacher", teacher)):
        if name is not None:
            lost += rename_paths(spec, side, named_model(name, device="meta"), name)
    found = list(problems.found) + lost
    again = Problems(dict(problems.lines))
    if spec:
        Spec.read(yaml.safe_load(yaml.safe_dump(spec)), again)
    found += [problem for problem in again.found if problem not in found]
    return Migrated(spec=spec, notes=tuple(notes.found), not_mapped=tuple(found))


def _in_order(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Put the keys in the order in which they are explained."""
    first = {key: spec[key] for key in KEYS if key in spec and spec[key] not in ({}, [], None)}
    return first | {key: value for key, value in spec.items() if key not in KEYS}


def _plain(value: Any, where: str, lost: list[str]) -> Any:
    """Copy what YAML can hold, so that no part is written once and referred to."""
    if isinstance(value, Mapping):
        return {key: _plain(part, f"{where}.{key}".lstrip("."), lost) for key, part in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(part, f"{where}[{index}]", lost) for index, part in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    lost.append(f"{where}: is {value!r}, which a YAML file cannot hold")
    return None
