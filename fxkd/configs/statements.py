"""The statements of a config, followed one after another: what each name means at the end."""

import ast
import re
from pathlib import Path
from typing import Any

from fxkd.configs.bases import BASE, look_up, refer_text, without_delete
from fxkd.configs.expressions import DEFINITIONS, Expressions, NotDone
from fxkd.configs.located import Located, Unknown
from fxkd.configs.said import said
from fxkd.errors import Problems

HARMLESS = ("print",)


class Statements(Expressions):
    """Follows the statements of a file one after another."""

    def __init__(self, file: str, base: dict[Any, Located], notes: Problems) -> None:
        super().__init__(file, {})
        self.base = base
        self.notes = notes
        path = Path(file)
        parts = {"fileDirname": str(path.resolve().parent), "fileBasename": path.name}
        self.about = parts | {"fileBasenameNoExtension": path.stem, "fileExtname": path.suffix}

    def run(self, tree: ast.Module) -> dict[str, Located]:
        """Give what each name means at the end."""
        for node in tree.body:
            self.follow(node)
        return self.names

    def follow(self, node: ast.stmt) -> None:
        """Follow one statement; one that is not understood makes unknown what it could change."""
        line = self.line(node)
        try:
            if self._understood(node):
                return
            unknown = Unknown(said(node.value if isinstance(node, ast.Expr) else node), line)
        except NotDone as reason:
            unknown = Unknown(str(reason), line)
        except Exception as error:  # noqa: BLE001 (what a file does wrong is told at its line)
            unknown = Unknown(f"an error ({type(error).__name__}: {error})", line)
        self.forget_in(node, unknown)
        if unknown.why not in DEFINITIONS:
            self.notes.found.append(f"{line}: {unknown.why} was not executed")
            self.notes.places.append("")

    def _understood(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            value = self.evaluate(node.value)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign(node.target, self.evaluate(node.value))
        elif isinstance(node, ast.AugAssign):
            self._assign(node.target, self._added(node))
        elif isinstance(node, ast.Expr):
            return isinstance(node.value, ast.Constant) or self._called(node.value)
        elif isinstance(node, ast.Delete) and all(isinstance(one, ast.Name) for one in node.targets):
            for target in node.targets:
                self.names.pop(target.id, None)  # type: ignore[attr-defined]
        else:
            return isinstance(node, ast.Pass)
        return True

    def _assign(self, target: ast.expr, value: Located) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value.value, (list, tuple)):
            for one, part in zip(target.elts, value.value, strict=True):
                self._assign(one, part)
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner = self._evaluate(target.value)
            key: Any = target.attr if isinstance(target, ast.Attribute) else self._plain(target.slice)
            if not isinstance(owner.value, dict) and (not isinstance(owner.value, list) or isinstance(key, slice)):
                raise NotDone(f"the assignment to {ast.unparse(target)!r}")
            self._put(owner, [value])
            owner.value[key] = value
        else:
            raise NotDone(f"the assignment to {ast.unparse(target)!r}")

    def _added(self, node: ast.AugAssign) -> Located:
        target = ast.parse(ast.unparse(node.target), mode="eval").body  # the same, read instead of written
        old, more = self._evaluate(ast.copy_location(target, node)), self._evaluate(node.value)
        if isinstance(old.value, list) and isinstance(node.op, ast.Add) and isinstance(more.value, (list, tuple)):
            old.value.extend(self._put(old, list(more.value)))
            return old
        value = self.binary(node.op, old, more, node)
        return value if isinstance(value, Located) else self._located(value, self.line(node))

    def _called(self, node: ast.expr) -> bool:
        """Do what ``update``, ``append`` and ``extend`` do; tell whether the call was one of them."""
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Name):
            return node.func.id in HARMLESS and node.func.id not in self.names
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("update", "append", "extend"):
            return False
        owner, method = self._evaluate(node.func.value), node.func.attr
        if method == "update" and isinstance(owner.value, dict):
            parts = self._dict_call(node)
            self._put(owner, list(parts.values()))
            owner.value.update(parts)
        elif method in ("append", "extend") and isinstance(owner.value, list) and len(node.args) == 1:
            (argument,) = node.args
            more = [self._entry(argument)] if method == "append" else self._spread(argument)
            owner.value.extend(self._put(owner, more))
        else:
            return False
        return True

    def _put(self, owner: Located, parts: list[Located]) -> list[Located]:
        """Give the parts if they can be put into ``owner``."""
        if any(part.holds(owner) for part in parts):
            raise NotDone("a value that holds itself")
        return parts

    def text(self, value: str, node: ast.expr) -> Any:
        """Put what the bases say, and what the file is called, in the place of ``{{...}}``."""
        if "{{" not in value:
            return value
        filled = re.sub(r"\{\{\s*(file\w+)\s*\}\}", lambda match: self.about.get(match[1], match[0]), value)
        return self._found(refer_text(filled, self.base, self.line(node)))

    def _set(self, node: ast.Set) -> Any:
        inner = node.elts[0] if len(node.elts) == 1 else None
        if isinstance(inner, ast.Set) and len(inner.elts) == 1:  # {{_base_.name}} without quotes
            return self._evaluate(inner.elts[0])
        return super()._set(node)

    def _name(self, node: ast.Name) -> Located:
        return Located(self.base, self.line(node)) if node.id == BASE else super()._name(node)

    def _attribute(self, node: ast.Attribute) -> Located:
        if isinstance(node.value, ast.Name) and node.value.id == BASE:
            return self._found(without_delete(look_up(node.attr, self.base, self.line(node))))
        return super()._attribute(node)
