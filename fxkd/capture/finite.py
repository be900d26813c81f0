"""Whether all is finite: models ask it of their own values, and go another way only where something went wrong."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from fxkd.capture.lines import current_line
from fxkd.capture.tape import Tape
from fxkd.errors import GuardError

EACH = {"isfinite": "all", "isinf": "any", "isnan": "any"}  # what asks of each number, and what of all of them
IS_RIGHT = {"all": True, "any": False}  # what is given where nothing went wrong
REMEDY = "name the function or method that asks as a point, so that it stays one node, or use backend='eager'"
MARK = "_fxkd_asked"  # on a tensor without values: which question it answers, and how often it was written to


def truth(function: Callable[..., Any], args: tuple[Any, ...]) -> bool | None:
    """Give the truth of a tensor without values, if it tells whether numbers are finite: that they are."""
    return IS_RIGHT.get(_asked(args[0])) if function is Tensor.__bool__ else None


def note(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], value: Any) -> None:
    """Note on what a function gives that it tells whether numbers are finite, of each or of all."""
    name = getattr(function, "__name__", "")
    if not isinstance(value, Tensor):
        return
    if name in EACH:
        setattr(value, MARK, (f"each, then {EACH[name]}", value._version))
    elif name in IS_RIGHT and len(args) == 1 and not kwargs and _asked(args[0]) == f"each, then {name}":
        setattr(value, MARK, (name, value._version))


def _asked(tensor: Tensor) -> str:
    question, version = getattr(tensor, MARK, ("", 0))
    return question if version == tensor._version else ""


def is_of_input(tape: Tape, asked: Any) -> bool:
    """Tell whether it was asked of an argument of the model: a mask may rightly hold what is not finite."""
    of_all = tape.argument(asked)
    of_each = of_all.args[0]
    source = of_each.args[0] if isinstance(of_each, fx.Node) else None
    return isinstance(source, fx.Node) and source.op == "placeholder"


def check(tape: Tape, asked: Tensor, is_true: bool) -> None:
    """Let the graph check at every step that the answer is the same."""
    told = (
        f"values are not finite at {current_line()}, where the model goes another way than the graph; if that is as it "
        f"should be, {REMEDY}"
    )
    node = tape.argument(asked)
    if not is_true:
        node = tape.graph.call_function(torch.logical_not, (node,))
    tape.graph.call_function(guard_finite, (node, told)).meta["effect"] = True


def guard_finite(is_right: Tensor, told: str) -> None:
    """Stop where the model goes another way; inside a compiled region it is torch that stops."""
    if torch.compiler.is_compiling():
        torch._assert_async(is_right, told)
    elif not is_right:
        raise GuardError(told)
