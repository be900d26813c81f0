"""``custom_imports``: modules of the user's that register losses and connectors, imported only if that is allowed."""

import importlib
from collections.abc import Mapping
from typing import Any

from fxkd.errors import Problems

KEY = "custom_imports"


def import_custom(given: Any, problems: Problems, allowed: bool) -> None:
    """Import what ``custom_imports`` names.

    Args:
        given: ``{"imports": [...], "allow_failed_imports": False}``, or nothing.
        problems: Gets what could not be imported, or that nothing was.
        allowed: Whether the user of the spec allows it: to import a module executes it.
    """
    if given is None:  # only an execution would give it, which is said
        return
    names = given.get("imports") if isinstance(given, Mapping) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        problems.add(KEY, f"is {given!r}; give {{'imports': [names of modules], 'allow_failed_imports': False}}")
        return
    unknown = [key for key in given if key not in ("imports", "allow_failed_imports")]
    for key in unknown:
        problems.add(f"{KEY}.{key}", "unknown key; there is 'imports', 'allow_failed_imports'.")
    if not allowed:
        told = "would be imported, which executes them; allow it with allow_imports=True (or --allow-imports)"
        problems.add(KEY, f"{', '.join(map(repr, names))} {told}")
        return
    for index, name in enumerate(names):
        _import(name, f"{KEY}.imports[{index}]", bool(given.get("allow_failed_imports", False)), problems)


def _import(name: str, where: str, may_fail: bool, problems: Problems) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 (whatever a module does as it is imported)
        if not (may_fail and isinstance(error, ImportError)):
            problems.add(where, f"{name!r} cannot be imported: {type(error).__name__}: {error}")
