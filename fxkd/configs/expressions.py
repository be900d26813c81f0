"""An expression of Python -> its value, without executing anything."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from fxkd.configs.arithmetic import BINARY, PURE, UNARY, reaches_in, too_large, too_wide
from fxkd.configs.located import Located, Unknown
from fxkd.configs.said import hint, said

DEFINITIONS = ("an import", "a function", "a class")  # their names are no part of a config
MAPPINGS = ("dict", "ConfigDict", "OrderedDict")
CONVERSIONS: Mapping[int, Callable[[Any], Any]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
CONTAINERS = (dict, list, tuple)


class NotDone(Exception):
    """A value is not known: holds what stands in its place."""


class Expressions:
    """Evaluates literals, names, ``dict()`` calls, texts put together and simple arithmetic.

    Args:
        file: What the file is called in messages.
        names: What each name of the file means.
    """

    def __init__(self, file: str, names: dict[str, Located]) -> None:
        self.file = file
        self.names = names

    def evaluate(self, node: ast.expr) -> Located:
        """Give the value of an expression, with ``Unknown`` for each part that only an execution would give."""
        try:
            return self._evaluate(node)
        except NotDone as reason:
            unknown = Unknown(str(reason), self.line(node))
        except Exception as error:  # noqa: BLE001 (what a file does wrong is told at its line)
            unknown = Unknown(f"an error ({type(error).__name__}: {error})", self.line(node))
        self.forget_in(node, unknown)
        return Located(unknown, unknown.line)

    def line(self, node: ast.AST) -> str:
        """Say where ``node`` is written."""
        return f"{self.file}:{getattr(node, 'lineno', 1)}"

    def forget_in(self, tree: ast.AST, unknown: Unknown) -> None:
        """Make unknown what ``tree`` could change: names it assigns, containers it calls or hands to a call."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self.names[node.id] = Located(unknown, unknown.line)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.names[node.name] = Located(unknown, unknown.line)
            elif isinstance(node, ast.alias):
                self.names[(node.asname or node.name).partition(".")[0]] = Located(unknown, unknown.line)
            elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
                self._forget_values(node.iter, unknown)
            elif isinstance(node, ast.Call) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
                self._forget_values(node, unknown)

    def _forget_values(self, tree: ast.AST, unknown: Unknown) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in self.names:
                self.names[node.id].forget(unknown)

    def _evaluate(self, node: ast.expr) -> Located:
        evaluate = getattr(self, f"_{type(node).__name__.lower()}", None)
        if evaluate is None:
            raise NotDone(said(node))
        value = evaluate(node)
        return value if isinstance(value, Located) else self._located(value, self.line(node))

    def _located(self, value: Any, line: str) -> Located:
        if isinstance(value, dict):
            return Located({key: self._part(part, line) for key, part in value.items()}, line)
        if isinstance(value, (list, tuple)):
            return Located(type(value)(self._part(part, line) for part in value), line)
        return Located(value, line)

    def _part(self, value: Any, line: str) -> Located:
        return value if isinstance(value, Located) else self._located(value, line)

    def _plain(self, node: ast.expr) -> Any:
        """Give plain data; a part that is not known makes the whole unknown."""
        located = self._evaluate(node)
        reason = next(filter(None, map(_why, [located, *_inner(located)])), None)
        if reason:
            raise NotDone(reason)
        return located.data()

    def _constant(self, node: ast.Constant) -> Any:
        return self.text(node.value, node) if isinstance(node.value, str) else node.value

    def text(self, value: str, node: ast.expr) -> Any:
        """Give what a text means; a file that inherits from others has its own rule."""
        return value

    def _name(self, node: ast.Name) -> Located:
        if node.id not in self.names:
            raise NotDone(f"the name {node.id!r}, which the file does not define{hint(node.id, self.names)}")
        if isinstance(self.names[node.id].value, Unknown):
            why = self.names[node.id].value.why
            raise NotDone(f"the name {node.id!r}, which is {why}" if why in DEFINITIONS else why)
        return self.names[node.id]

    def _list(self, node: ast.List | ast.Tuple) -> Any:
        parts: list[Located] = []
        for part in node.elts:
            parts.extend(self._spread(part.value) if isinstance(part, ast.Starred) else [self._entry(part)])
        return parts if isinstance(node, ast.List) else tuple(parts)

    _tuple = _list

    def _set(self, node: ast.Set) -> Any:
        return {self._plain(part) for part in node.elts}

    def _spread(self, node: ast.expr) -> list[Located]:
        located = self._evaluate(node)
        if isinstance(located.value, (list, tuple)):
            return list(located.value)
        return [self._part(part, self.line(node)) for part in self._plain(node)]

    def _entry(self, node: ast.expr) -> Located:
        """Give a part of a container, which keeps its own line; an unknown one leaves the others known."""
        located = self.evaluate(node)
        return Located(located.value, self.line(node)) if not isinstance(located.value, CONTAINERS) else located

    def _dict(self, node: ast.Dict) -> dict[Any, Located]:
        parts: dict[Any, Located] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            parts.update(self._mapping(value) if key is None else {self._plain(key): self._entry(value)})
        return parts

    def _mapping(self, node: ast.expr) -> dict[Any, Located]:
        located = self._evaluate(node)
        if isinstance(located.value, dict):
            return located.value
        if isinstance(located.value, Unknown):
            raise NotDone(located.value.why)
        return {key: self._part(part, self.line(node)) for key, part in dict(self._plain(node)).items()}

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in MAPPINGS and not (name in self.names and not _imported(self.names[name])):
            return self._dict_call(node)
        if name in PURE and name not in self.names and not node.keywords:
            return PURE[name](*(self._plain(argument) for argument in node.args))
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join", "copy"):
            return self._method(node, node.func)
        raise NotDone(said(node))

    def _dict_call(self, node: ast.Call) -> dict[Any, Located]:
        parts: dict[Any, Located] = {}
        for argument in node.args:
            parts.update(self._mapping(argument))
        for keyword in node.keywords:
            named = {keyword.arg: self._entry(keyword.value)} if keyword.arg else self._mapping(keyword.value)
            parts.update(named)
        return parts

    def _method(self, node: ast.Call, method: ast.Attribute) -> Any:
        owner = self._evaluate(method.value)
        if method.attr == "copy" and isinstance(owner.value, (dict, list)) and not node.args:
            return owner.value.copy()
        if method.attr == "copy" or not isinstance(owner.value, str):
            raise NotDone(said(node))
        named = {keyword.arg or "": self._plain(keyword.value) for keyword in node.keywords}
        if method.attr == "format" and reaches_in(owner.value):
            raise NotDone(said(node))
        return getattr(owner.value, method.attr)(*map(self._plain, node.args), **named)

    def _attribute(self, node: ast.Attribute) -> Located:
        owner = self._evaluate(node.value)
        if not isinstance(owner.value, dict) or node.attr not in owner.value:
            raise NotDone(said(node))
        return self._found(owner.value[node.attr])

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self._evaluate(node.value)
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            index: Any = slice(*(None if bound is None else self._plain(bound) for bound in bounds))
        else:
            index = self._plain(node.slice)
        if isinstance(owner.value, Unknown):
            raise NotDone(owner.value.why)
        part = owner.value[index]
        return self._found(part) if isinstance(part, Located) else part

    def _found(self, part: Located) -> Located:
        if isinstance(part.value, Unknown):
            raise NotDone(part.value.why)
        return part

    def _binop(self, node: ast.BinOp) -> Any:
        return self.binary(node.op, self._evaluate(node.left), self._evaluate(node.right), node)

    def binary(self, kind: ast.operator, left: Located, right: Located, node: ast.AST) -> Any:
        """Compute with two values; parts of lists that are joined keep their lines."""
        if isinstance(kind, ast.Add) and isinstance(left.value, list) and isinstance(right.value, list):
            return left.value + right.value
        reason = next(filter(None, map(_why, [left, right, *_inner(left), *_inner(right)])), None)
        if reason or type(kind) not in BINARY:
            raise NotDone(reason or said(node))
        a, b = left.data(), right.data()
        if too_large(kind, a, b):
            raise NotDone("arithmetic with a very large result")
        return BINARY[type(kind)](a, b)

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        return UNARY[type(node.op)](self._plain(node.operand))

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(self._piece(part) for part in node.values)

    def _piece(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if not isinstance(node, ast.FormattedValue):
            raise NotDone(said(node))
        value = self._plain(node.value)
        convert: Callable[[Any], Any] | None = CONVERSIONS.get(node.conversion)
        how = self._joinedstr(node.format_spec) if isinstance(node.format_spec, ast.JoinedStr) else ""
        if too_wide(how):
            raise NotDone(said(node))
        return format(value if convert is None else convert(value), how)


def _why(located: Located) -> str | None:
    return located.value.why if isinstance(located.value, Unknown) else None


def _inner(located: Located) -> list[Located]:
    found = []
    for _, part in located.parts():
        found += [part, *_inner(part)]
    return found


def _imported(located: Located) -> bool:
    return isinstance(located.value, Unknown) and located.value.why == "an import"
