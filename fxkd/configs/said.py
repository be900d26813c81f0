"""What stands in a file, in words."""

import ast
from collections.abc import Iterable

from fxkd.errors import did_you_mean


def said(node: ast.AST) -> str:
    """Say what kind of thing stands at ``node``.

    >>> said(ast.parse("os.getenv('HOME')", mode="eval").body)
    "a call of 'os.getenv'"
    """
    if isinstance(node, ast.Call):
        return f"a call of {ast.unparse(node.func)!r}"
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return "a comprehension"
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return "an import"
    words = {ast.If: "an 'if'", ast.For: "a 'for'", ast.While: "a 'while'", ast.With: "a 'with'", ast.Try: "a 'try'"}
    words |= {ast.FunctionDef: "a function", ast.ClassDef: "a class", ast.Lambda: "a lambda", ast.IfExp: "an 'if'"}
    return words.get(type(node), f"the code {ast.unparse(node).splitlines()[0]!r}")


def hint(name: str, known: Iterable[str]) -> str:
    """Offer near names inside a sentence.

    >>> hint("chanels", ["channels"])
    "; did you mean 'channels'"
    """
    return did_you_mean(name, known).removesuffix("?").replace(" Did you mean", "; did you mean")
