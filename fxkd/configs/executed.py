"""A config that its reader trusts, executed as mmengine does."""

import ast
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from fxkd.configs.located import Located, locate
from fxkd.errors import Problems

BASES = "__bases__"


class Attributes(dict[str, Any]):
    """A dict whose keys are attributes too, as mmengine's ConfigDict."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"there is no {name!r}")
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def execute_file(tree: ast.Module, path: Path, base: dict[Any, Located], problems: Problems) -> dict[str, Located]:
    """Execute a file and give its names with their values; each has the line of its last assignment."""
    inherited = Attributes({name: _with_attributes(value.data()) for name, value in base.items()})
    names: dict[str, Any] = {"__file__": str(path), "__name__": path.stem, "ConfigDict": Attributes, BASES: inherited}
    given = set(names)
    lines = _lines(tree, str(path))
    try:
        code = compile(ast.fix_missing_locations(_References().visit(tree)), str(path), "exec")
        exec(code, names)
    except Exception as error:  # noqa: BLE001 (whatever a file does wrong)
        problems.found.append(f"{path}:{_line(error, path)}: {type(error).__name__}, as it was executed: {error}")
        return {}
    values = {name: value for name, value in names.items() if name not in given and not name.startswith("__")}
    return {
        name: locate(_plain(value), lines.get(name, str(path)))
        for name, value in values.items()
        if not isinstance(value, (ModuleType, FunctionType, type))
    }


class _References(ast.NodeTransformer):
    """Makes ``_base_.name`` and ``{{_base_.name}}`` mean what the bases say."""

    def visit_Set(self, node: ast.Set) -> Any:
        inner = node.elts[0] if len(node.elts) == 1 else None
        if isinstance(inner, ast.Set) and len(inner.elts) == 1:
            return self.visit(inner.elts[0])
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id == "_base_" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name(BASES, ast.Load()), node)
        return node


def _lines(tree: ast.Module, file: str) -> dict[str, str]:
    return {
        node.id: f"{file}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _line(error: BaseException, path: Path) -> int:
    trace, line = error.__traceback__, 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _with_attributes(value: Any) -> Any:
    if isinstance(value, dict):
        return Attributes({key: _with_attributes(part) for key, part in value.items()})
    return list(map(_with_attributes, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = map(_plain, value)
        return list(parts) if isinstance(value, list) else tuple(parts)
    return value
