"""Files that inherit from files: ``_base_`` names them, what a file says itself is written over what they say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fxkd.configs.located import Located, Unknown
from fxkd.configs.said import hint
from fxkd.errors import Problems

BASE, DELETE = "_base_", "_delete_"
REFERENCE = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")
Chain = tuple[Path, ...]
Read = Callable[[Path, Chain, str], dict[Any, Located] | None]


def read_bases(given: Located, read: Read, chain: Chain, problems: Problems, notes: Problems) -> dict[Any, Located]:
    """Read the files that ``given`` names, and put what they say together.

    Args:
        given: What stands under ``_base_``: a path, relative to the file, or several.
        read: Reads one file: its path, the files that led to it, and where it is named.
        chain: The file that ``given`` stands in, and before it those that inherit from it.
        problems: Gets missing files, circles, and keys that two files have.
        notes: Gets the files of other packages (``package::path``), which are not followed.
    """
    names = [given.data()] if isinstance(given.value, str) else given.data()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        problems.found.append(f"{given.line}: {BASE}: is {_shown(names)}; give the path of a file, or a list of them")
        return {}
    together: dict[Any, Located] = {}
    for name in names:
        if "::" in name:
            notes.found.append(f"{given.line}: {BASE}: {name!r} belongs to another package and is not followed")
            notes.places.append(BASE)
            continue
        _join(together, _read_one(name, read, chain, given.line, problems), name, given.line, problems)
    return together


def _shown(names: Any) -> str:
    return names.why if isinstance(names, Unknown) else repr(names)


def _read_one(name: str, read: Read, chain: Chain, line: str, problems: Problems) -> dict[Any, Located]:
    path = chain[-1].parent / name
    if not path.exists() and "\\" in name:
        path = chain[-1].parent / name.replace("\\", "/")
    seen = [one.resolve() for one in chain]
    if path.resolve() in seen:
        circle = [*chain[seen.index(path.resolve()) :], path]
        told = " -> ".join(one.name for one in circle)
        problems.found.append(f"{line}: {BASE}: the files inherit from each other in a circle: {told}")
        return {}
    return read(path, chain, line) or {}


def _join(together: dict[Any, Located], more: dict[Any, Located], name: str, line: str, problems: Problems) -> None:
    for key, part in more.items():
        if key in together:
            told = f"{line}: {BASE}: {key!r} is in {name!r} ({part.line}) and in another base ({together[key].line})"
            problems.found.append(f"{told}; two bases have no key in common")
        together[key] = part


def merge(own: dict[Any, Located], base: dict[Any, Located], problems: Problems, where: str = "") -> dict[Any, Located]:
    """Write ``own`` over ``base``: dicts into each other, all else in its place; ``_delete_: True`` drops the base's.

    The rules are mmengine's (https://mmengine.readthedocs.io), a dict of positions over a list included.
    """
    parts = dict(base)
    for key, value in own.items():
        if key == DELETE:
            continue
        inherited = base.get(key)
        if inherited is None or not isinstance(value.value, dict) or _deletes(value):
            parts[key] = without_delete(value)
        else:
            parts[key] = _merge_part(value, inherited, problems, f"{where}.{key}".lstrip("."))
    return parts


def _merge_part(value: Located, inherited: Located, problems: Problems, where: str) -> Located:
    if isinstance(inherited.value, Unknown):
        return inherited
    if isinstance(inherited.value, dict):
        return Located(merge(value.value, inherited.value, problems, where), value.line)
    if isinstance(inherited.value, list) and all(str(key).isdigit() for key in value.value):
        return _merge_positions(value, inherited, problems, where)
    kind = type(inherited.value).__name__
    told = f"is a mapping, and the base has a {kind} there ({inherited.line}): add '{DELETE}: True' to replace it"
    problems.found.append(f"{value.line}: {where}: {told}")
    return without_delete(value)


def _merge_positions(value: Located, inherited: Located, problems: Problems, where: str) -> Located:
    positions = {str(index): part for index, part in enumerate(inherited.value)}
    for key in [key for key in value.value if str(key) not in positions]:
        has = len(positions)
        problems.found.append(f"{value.line}: {where}[{key}]: the base's list has {has} entries ({inherited.line})")
    own = {str(key): part for key, part in value.value.items() if str(key) in positions}
    return Located(list(merge(own, positions, problems, where).values()), value.line)


def _deletes(value: Located) -> bool:
    return DELETE in value.value and value.value[DELETE].data() is True


def without_delete(value: Located) -> Located:
    """Take the key ``_delete_`` out at every depth."""
    if isinstance(value.value, dict):
        parts = {key: without_delete(part) for key, part in value.value.items() if key != DELETE}
        return Located(parts, value.line)
    if isinstance(value.value, (list, tuple)):
        return Located(type(value.value)(map(without_delete, value.value)), value.line)
    return value


def refer(value: Located, base: dict[Any, Located]) -> Located:
    """Put what the bases say in the place of each ``"{{_base_.path}}"``, at every depth."""
    if isinstance(value.value, dict):
        return Located({key: refer(part, base) for key, part in value.value.items()}, value.line)
    if isinstance(value.value, (list, tuple)):
        return Located(type(value.value)(refer(part, base) for part in value.value), value.line)
    return refer_text(value.value, base, value.line) if isinstance(value.value, str) else value


def refer_text(text: str, base: dict[Any, Located], line: str) -> Located:
    """Read a text that is a reference, or has some in it."""
    whole = REFERENCE.fullmatch(text.strip())
    if whole is not None:
        return look_up(whole[1], base, line)
    found = {match[0]: look_up(match[1], base, line) for match in REFERENCE.finditer(text)}
    for written, part in found.items():
        if isinstance(part.value, Unknown):
            return part
        text = text.replace(written, str(part.data()))
    return Located(text, line)


def look_up(path: str, base: dict[Any, Located], line: str) -> Located:
    """Find ``a.b.0`` in what the bases say."""
    found = Located(base, line)
    for name in path.split("."):
        there = {key.strip("[]"): part for key, part in found.parts()}
        if name not in there:
            told = f"'_base_.{path}', which no base that was read defines{hint(name, there)}"
            return Located(Unknown(told, line), line)
        found = there[name]
    return found
