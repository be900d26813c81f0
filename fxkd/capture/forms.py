"""What a call was given and gave, as plain nested tuples, and how sizes of results follow from what was given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.errors import CaptureError

Form = tuple[Any, ...]
ARRAY = "ndarray"  # numpy may not be installed

kinds: dict[int, type] = {}  # by identity, as a constant of a compiled region cannot be a class


@dataclass(slots=True)
class Parts:
    """What a form leaves out: the values that are other ones at each call, and what must only be the same object.

    The parameters of a module are among the tensors, as gradients may flow to them.
    """

    tensors: list[Any]
    numbers: list[Any]
    reals: list[Any]
    objects: list[int]


def form_of_call(value: Any, parts: Parts) -> Form:
    """Take arguments apart. Runs as it is inside a compiled region too, so that it asks for nothing but constants."""
    if isinstance(value, Tensor):
        parts.tensors.append(value)
        return ("tensor", len(parts.tensors) - 1, value.dim(), value.dtype)
    if isinstance(value, (bool, str)) or value is None or value is ...:
        return ("constant", value)
    if isinstance(value, (int, torch.SymInt)):
        parts.numbers.append(value)
        return ("number", len(parts.numbers) - 1)
    if isinstance(value, float):
        parts.reals.append(value)
        return ("real", len(parts.reals) - 1)
    if isinstance(value, (torch.dtype, torch.device)):
        return ("constant", value)
    if type(value) in (list, tuple):
        kind = "list" if type(value) is list else "tuple"
        return (kind, tuple([form_of_call(part, parts) for part in value]))
    if has_fields(value):
        held = content(value)
        return ("fields", type(value), tuple(held), tuple([form_of_call(part, parts) for part in held.values()]))
    parts.objects.append(id(value))
    if isinstance(value, nn.Module):
        first, own = len(parts.tensors), list(value.parameters())
        parts.tensors.extend(own)
        sizes = tuple([parameter.dim() for parameter in own])
        return ("module", len(parts.objects) - 1, first, sizes, value.training)
    return ("object", len(parts.objects) - 1)


def has_fields(value: Any) -> bool:
    """Tell whether a value is a dict, a named tuple or a dataclass, which is made anew from what it holds by name."""
    return isinstance(value, dict) or hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__")


def content(value: Any) -> dict[Any, Any]:
    """Give by name what such a value holds."""
    if isinstance(value, dict):
        return {key: part for key, part in value.items()}  # noqa: C416 (one of its own class may not be a plain dict)
    names = value._fields if hasattr(value, "_fields") else value.__dataclass_fields__
    return {name: getattr(value, name) for name in names}


def made_of(kind: Any, held: dict[Any, Any]) -> Any:
    """Make such a value anew."""
    if kind is dict:
        return held
    return kind(**held) if hasattr(kind, "_fields") or hasattr(kind, "__dataclass_fields__") else kind(held)


def modules_in(form: Form) -> Iterator[tuple[int, int, int]]:
    """Yield which of the objects are modules, and where among the tensors their parameters are: first and count."""
    if form[0] == "module":
        _, index, first, dims, _ = form
        yield index, first, len(dims)
    elif form[0] in ("list", "tuple", "fields"):
        for part in form[-1]:
            yield from modules_in(part)


def put_together(form: Form, parts: Parts, objects: Sequence[Any]) -> Any:
    """Make the arguments again."""
    kind = form[0]
    if kind == "constant":
        return form[1]
    if kind in ("list", "tuple"):
        made = [put_together(part, parts, objects) for part in form[1]]
        return made if kind == "list" else tuple(made)
    if kind == "fields":
        values = [put_together(part, parts, objects) for part in form[3]]
        return made_of(form[1], dict(zip(form[2], values, strict=True)))
    held = {"tensor": parts.tensors, "number": parts.numbers, "real": parts.reals}
    return held.get(kind, objects)[form[1]]


def dims(parts: Parts) -> list[Any]:
    """List every size of the tensors, and the whole numbers: what sizes of a result may follow from."""
    return [size for tensor in parts.tensors for size in tensor.shape] + parts.numbers


def form_of_result(value: Any, given: Sequence[Tensor], tensors: list[Tensor], path: str) -> Form:
    """Take a result apart: its tensors go to ``tensors``, each once, numbers and arrays as tensors too.

    A graph does not follow numbers in other containers than lists, tuples and dicts: they are constants there.

    Raises:
        CaptureError: It holds what no operator can give.
    """
    return _form_of_result(value, given, tensors, path, True)


def _form_of_result(value: Any, given: Sequence[Tensor], tensors: list[Tensor], path: str, is_followed: bool) -> Form:
    if isinstance(value, Tensor):
        for kind, known in (("given", given), ("tensor", tensors)):
            if same := [index for index, tensor in enumerate(known) if tensor is value]:
                return (kind, same[0])
        return _held(value, tensors, "tensor")
    if isinstance(value, (bool, str)) or value is None or (isinstance(value, (int, float)) and not is_followed):
        return ("constant", value)
    if isinstance(value, (int, float)):
        kind = "number" if isinstance(value, int) else "real"
        return _held(torch.tensor(value, dtype=torch.int64 if kind == "number" else torch.float64), tensors, kind)
    if type(value).__name__ == ARRAY:
        return _held(torch.as_tensor(value), tensors, "array")
    if type(value) in (list, tuple):
        forms = (_form_of_result(part, given, tensors, path, is_followed) for part in value)
        return (type(value).__name__, tuple(forms))
    if has_fields(value):
        kinds[id(type(value))] = type(value)
        held, is_plain = content(value), is_followed and type(value) is dict
        forms = (_form_of_result(part, given, tensors, path, is_plain) for part in held.values())
        return ("fields", id(type(value)), tuple(held), tuple(forms))
    raise CaptureError(
        f"{path!r} gives a {type(value).__name__}, which one operator of a compiled graph cannot give (it can give "
        "tensors, numbers, texts, arrays, and lists, tuples, dicts and dataclasses of these): name a function that "
        "gives such, or use compile=False"
    )


def _held(value: Tensor, tensors: list[Tensor], kind: str) -> Form:
    tensors.append(value)
    return (kind, len(tensors) - 1)


def result_of(form: Form, given: Sequence[Any], tensors: Sequence[Any]) -> Any:
    """Make a result again. Runs inside a compiled region."""
    kind = form[0]
    if kind == "constant":
        return form[1]
    if kind == "given":
        return given[form[1]]
    if kind == "list":
        return [result_of(part, given, tensors) for part in form[1]]
    if kind == "tuple":
        return tuple([result_of(part, given, tensors) for part in form[1]])
    if kind == "fields":
        values = [result_of(part, given, tensors) for part in form[3]]
        return made_of(kinds[form[1]], dict(zip(form[2], values, strict=True)))
    value = tensors[form[1]]
    if kind == "array":
        return value.numpy()
    return value if kind == "tensor" else value.item()


def follow(columns: Sequence[tuple[int, ...]], rows: Sequence[Sequence[int]]) -> tuple[Any, ...]:
    """Say for each size of a result how it follows from the sizes of what was given.

    Args:
        columns: Each size of the result, in every sample.
        rows: The sizes of what was given, sample by sample.

    Returns:
        For each ``("constant", size)``, ``("same", index)`` of what was given, or ``("free", number)``; sizes that are
        alike in every sample have one number.

    >>> follow([(2, 4), (3, 3), (5, 9), (5, 9)], [[2, 7], [4, 7]])
    (('same', 0), ('constant', 3), ('free', 0), ('free', 0))
    """
    free: dict[tuple[int, ...], int] = {}
    found: list[tuple[str, int]] = []
    for column in columns:
        same = [index for index, sizes in enumerate(zip(*rows, strict=True)) if sizes == column]
        if same and len(set(column)) > 1:
            found.append(("same", same[0]))
        elif len(set(column)) == 1:
            found.append(("constant", column[0]))
        else:
            found.append(("free", free.setdefault(column, len(free))))
    return tuple(found)
