"""A YAML file -> the data in it, and the line of every part; what is wrong with the file is said with its line."""

from pathlib import Path
from typing import Any

import yaml

from fxkd.configs.bases import BASE, Chain, merge, read_bases, refer
from fxkd.configs.located import Located, known, relocate
from fxkd.configs.text_file import read_text
from fxkd.errors import Problems

MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, problems: Problems, notes: Problems | None = None) -> tuple[Any, dict[str, str]]:
    """Read plain data (nothing is executed) and where each part is written: ``"pairs[0].loss"`` -> ``"spec.yaml:7"``.

    What cannot be read gives None, with the reason in ``problems``; a mapping that has a key twice is a problem too.
    A mapping may name others under ``_base_`` (paths, relative to it), which it is written over.
    """
    return _inherit(path, (), "", problems, Problems() if notes is None else notes)


def _inherit(
    path: Path, chain: Chain, asked_at: str, problems: Problems, notes: Problems
) -> tuple[Any, dict[str, str]]:
    data, lines = _read_one(path, asked_at, problems)
    if not isinstance(data, dict) or BASE not in data:
        return data, lines

    def read(base: Path, seen: Chain, named_at: str) -> dict[Any, Located] | None:
        inherited, places = _inherit(base, seen, named_at, problems, notes)
        if inherited is not None and not isinstance(inherited, dict):
            problems.found.append(f"{named_at}: {BASE}: '{base}' is a {type(inherited).__name__}; a base is a mapping")
        return relocate(inherited, places, str(base)).value if isinstance(inherited, dict) else None

    try:
        own = relocate(data, lines, str(path))
    except RecursionError:
        problems.found.append(f"{path}: is nested without end: something in it holds itself")
        return None, {}
    base = read_bases(own.value.pop(BASE), read, (*chain, path), problems, notes)
    whole = Located(merge(refer(own, base).value, base, problems), str(path))
    return known(whole.data(), "", problems), dict(whole.lines())


def _read_one(path: Path, asked_at: str, problems: Problems) -> tuple[Any, dict[str, str]]:
    text = read_text(path, "YAML", problems, asked_at)
    if text is None:
        return None, {}
    written = _Written()
    try:
        data = _load(text, written)
    except yaml.YAMLError as error:
        problems.found.append(_not_yaml(path, error))
        return None, {}
    except (ValueError, RecursionError) as error:  # a date that does not exist, nesting without end
        problems.found.append(f"{path}: is not YAML that can be read: {error}")
        return None, {}
    if data is None:
        problems.found.append(f"{path}: is empty; a spec is a mapping")
    for place, first, again in written.twice:
        problems.found.append(f"{path}:{again}: {place}: is there twice, on line {first} and on line {again}")
    return data, {place: f"{path}:{line}" for place, line in written.lines.items()}


def _load(text: str, written: "_Written") -> Any:
    """Do what ``yaml.safe_load`` does, and look at the nodes between."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        written.read(node, "")  # before the data is made, which writes merged mappings into each other
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _not_yaml(path: Path, error: yaml.YAMLError) -> str:
    """Say in one line what is wrong where."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reasons = [getattr(error, "context", None), getattr(error, "problem", None)]
    reason = ", ".join(str(one) for one in reasons if one) or " ".join(str(error).split())
    line = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    return f"{path}{line}: is not YAML: {reason}"


class _Written:
    """On which line each part of a file is; a part that is written once and used twice has its first place."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.twice: list[tuple[str, int, int]] = []
        self._seen: set[int] = set()

    def read(self, node: yaml.nodes.Node, place: str) -> None:
        """Note the lines of what is in ``node``, which is at ``place``, and keys that are there twice."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.nodes.MappingNode):
            self._read_mapping(node, f"{place}." if place else "")
        elif isinstance(node, yaml.nodes.SequenceNode):
            for index, part in enumerate(node.value):
                self._note(f"{place}[{index}]", part, part)

    def _read_mapping(self, node: yaml.nodes.MappingNode, prefix: str) -> None:
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.nodes.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in first:
                    self.twice.append((f"{prefix}{key.value}", first[key.tag, key.value], line))
                first.setdefault((key.tag, key.value), line)
            self._note(f"{prefix}{key.value}", key, value)

    def _note(self, place: str, start: yaml.nodes.Node, value: yaml.nodes.Node) -> None:
        self.lines[place] = start.start_mark.line + 1  # the last of two counts, as it does in the data
        self.read(value, place)
