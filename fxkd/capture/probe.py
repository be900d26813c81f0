"""Find sizes that Python code looked at behind the recording's back, by recording again with other sizes.

A list indexed by a size, a size in ``math.log``: the interpreter reads the number and asks nobody. But then the graph
of another size is another graph.
"""

from collections.abc import Iterator
from math import isnan
from types import FunctionType
from typing import Any

from torch import Tensor, fx, nn

from fxkd.capture.guards import guard, guard_form
from fxkd.capture.held import alike
from fxkd.capture.tape import Tape
from fxkd.errors import GuardError


def guard_shape(tensor: Tensor, sizes: tuple[int | None, ...]) -> None:
    """Stop unless ``tensor`` has the sizes that are given; None is free."""
    for dim, size in enumerate(sizes):
        if size is not None and tensor.shape[dim] != size:
            raise GuardError(
                f"the graph holds only while size {dim} of an input is {size}, not {tensor.shape[dim]}: the model "
                "takes no other, or Python code reads it; call the distiller once outside of torch.compile with such "
                "inputs, so that they are captured too"
            )


def pin(graph: fx.Graph, places: list[tuple[str, int]]) -> None:
    """Guard sizes of inputs at the top of ``graph``."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node in placeholders:
        shape = node.meta["val"].shape
        sizes = tuple(size if (str(node.target), dim) in places else None for dim, size in enumerate(shape))
        if any(size is not None for size in sizes):
            with graph.inserting_after(placeholders[-1]):
                graph.call_function(guard_shape, (node, sizes))


def same_program(tape: Tape, other_tape: Tape) -> bool | None:
    """Tell whether two recordings wrote the same program; None where a guard tells them apart before that is known."""
    one, other = tape.graph, other_tape.graph
    numbers: dict[fx.Node, int] = {}
    for index, (left, right) in enumerate(zip(one.nodes, other.nodes, strict=False)):
        numbers[left] = numbers[right] = index
        if left.target is guard and right.target is guard and _tells_apart(left, right, numbers):
            return None
        if left.target is guard_form and right.target is guard_form and left.args[1] != right.args[1]:
            is_checked = bool(left.args[0].meta.get("by_values"))  # also in a compiled graph
            return None if is_checked and numbers[left.args[0]] == numbers[right.args[0]] else False
        if (left.op, left.target) != (right.op, right.target):
            return False
        if left.op == "get_attr" and not _same_constant(str(left.target), tape, other_tape):
            return False
        if not _same_arguments((left.args, left.kwargs), (right.args, right.kwargs), numbers):
            return False
    return len(one.nodes) == len(other.nodes)


def learn_memory(one: fx.Graph, other: fx.Graph) -> None:
    """Let ``one`` know what the same program does to memory at other sizes: a module may write to its input at some.

    What its nodes write to and live in grows by what it is in ``other``, so that it holds for both.
    """
    place: dict[int, frozenset[int]] = {}  # memory of the other's -> of ours that may be the same
    numbers: dict[fx.Node, int] = {}
    for index, (left, right) in enumerate(zip(one.nodes, other.nodes, strict=False)):
        numbers[left] = numbers[right] = index
        if left.target is guard and right.target is guard and _tells_apart(left, right, numbers):
            return  # from here on it is another program
        own = left.meta.get("storages", frozenset())
        for memory in right.meta.get("storages", frozenset()):
            place.setdefault(memory, own)
        for key in ("storages", "mutates"):
            found = [place.get(memory, frozenset()) for memory in right.meta.get(key, frozenset())]
            if found:
                left.meta[key] = left.meta.get(key, frozenset()).union(*found)


def _tells_apart(left: fx.Node, right: fx.Node, numbers: dict[fx.Node, int]) -> bool:
    """Tell whether one of two guards on the same number holds only where the other does not."""
    same_number = _same_arguments(left.args[0], right.args[0], numbers)
    return same_number and not _same_arguments(left.args[1:3], right.args[1:3], numbers)


def made_anew(tape: Tape, again: Tape) -> dict[str, bytes]:
    """Give, as they were, the objects that each of two recordings of one program made for itself."""
    lasting = {key for key in tape.written_down if _held(tape, key) is _held(again, key)}
    return {key: written for key, written in tape.written_down.items() if key not in lasting}


def other_objects(tape: Tape, again: Tape) -> list[str]:
    """Name the objects that each of two recordings made for itself, and that cannot be made anew as they were."""
    keys = [key for key in vars(tape.constants) if key.startswith("constant_")]
    keys = [key for key in keys if _held(tape, key) is not _held(again, key)]
    other = [key for key in keys if tape.written_down.get(key) is None or not _same_constant(key, tape, again)]
    return [f"an object {type(_held(tape, key)).__name__!r}" for key in other]


def _same_constant(target: str, tape: Tape, other: Tape) -> bool:
    key = target.rpartition(".")[2]
    one, again = _held(tape, key), _held(other, key)
    if one is again or (isinstance(one, bytes) and one == again) or _same_function(one, again):
        return True
    if isinstance(one, nn.Module):  # one that the forward makes, for a named function
        return alike(one, again)
    return key in tape.written_down and tape.written_down[key] == other.written_down.get(key)


def _held(tape: Tape, key: str) -> Any:
    return getattr(tape.constants, key, None)


def _same_function(one: Any, other: Any) -> bool:
    """Tell whether two functions, made anew at each call, do the same: one code, and the same plain data beside it."""
    if not (isinstance(one, FunctionType) and isinstance(other, FunctionType)):
        return False
    held, other_held = _closed_over(one), _closed_over(other)
    plain = all(isinstance(part, (int, float, str, type(None))) for part in held)
    return one.__code__ is other.__code__ and plain and all(map(same_constant, held, other_held))


def _closed_over(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _same_arguments(one: Any, other: Any, numbers: dict[fx.Node, int]) -> bool:
    left, right = list(_flat(one)), list(_flat(other))
    return len(left) == len(right) and all(_same(a, b, numbers) for a, b in zip(left, right, strict=True))


def _same(one: Any, other: Any, numbers: dict[fx.Node, int]) -> bool:
    if isinstance(one, fx.Node) and isinstance(other, fx.Node):
        return numbers[one] == numbers[other]
    return same_constant(one, other)


def same_constant(one: Any, other: Any) -> bool:
    """Tell whether two constants are the same; 1 and 1.0 and True are not."""
    if isinstance(one, float) and isinstance(other, float) and isnan(one) and isnan(other):
        return True
    return type(one) is type(other) and bool(one == other)


def _flat(value: Any) -> Iterator[Any]:
    """Yield the leaves of an argument, and the kinds and keys of what holds them."""
    if isinstance(value, (tuple, list)):
        yield len(value)
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield tuple(value)
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, slice):
        yield from (_item for part in (value.start, value.stop, value.step) for _item in _flat(part))
    else:
        yield value
