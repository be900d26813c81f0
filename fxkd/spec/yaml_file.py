"""A YAML file -> the data in it, and the line of every part; what is wrong with the file is said with its line."""

from pathlib import Path
from typing import Any

import yaml

from fxkd.errors import Problems, did_you_mean

SUFFIXES = (".yaml", ".yml")
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, problems: Problems) -> tuple[Any, dict[str, str]]:
    """Read plain data (nothing is executed) and where each part is written: ``"pairs[0].loss"`` -> ``"spec.yaml:7"``.

    What cannot be read gives None, with the reason in ``problems``; a mapping that has a key twice is a problem too.
    """
    text = _text(path, problems)
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


def _text(path: Path, problems: Problems) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problems.found.append(f"{path}: there is no such file." + _neighbours(path))
    except IsADirectoryError:
        problems.found.append(f"{path}: is a folder; give the YAML file." + _has(path))
    except OSError as error:
        problems.found.append(f"{path}: cannot be read: {error.strerror}")
    except ValueError as error:  # bytes that are no text, or a path that no file can have
        problems.found.append(f"{path}: is not text in UTF-8: {error}")
    return None


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder '{path.parent}'."
    near = did_you_mean(path.name, [one.name for one in path.parent.iterdir() if one.is_file()])
    return near or _has(path.parent)


def _has(folder: Path) -> str:
    names = sorted(one.name for one in folder.iterdir() if one.suffix in SUFFIXES)
    return f" '{folder}' has {', '.join(map(repr, names[:12]))}." if names else f" '{folder}' has no YAML files."


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
