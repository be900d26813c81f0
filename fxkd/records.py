"""What one record is: a value as it was, the inputs of a call, and a part of either."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import Context, register_pytree_node, tree_map

from fxkd.errors import PointError, did_you_mean
from fxkd.points import Place, class_attribute, described_like, original


class CallInputs(tuple[Any, ...]):
    """Hold the inputs of a module that was given keywords: the tuple of the positionals, and ``kwargs``.

    MMRazor drops the keywords. ``data_idx`` of a recorder may be an index into the tuple or the name of a keyword.

    >>> inputs = CallInputs((1, 2), {"mask": 3})
    >>> inputs, inputs.kwargs
    ((1, 2), {'mask': 3})
    """

    kwargs: dict[str, Any]

    def __new__(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "CallInputs":
        inputs = super().__new__(cls, args)
        inputs.kwargs = kwargs
        return inputs

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.kwargs


def _flatten(inputs: CallInputs) -> tuple[list[Any], Context]:
    return [*inputs, *inputs.kwargs.values()], tuple(inputs.kwargs)


def _unflatten(values: Any, keywords: Context) -> CallInputs:
    values = list(values)
    count = len(values) - len(keywords)
    return CallInputs(tuple(values[:count]), dict(zip(keywords, values[count:], strict=True)))


register_pytree_node(CallInputs, _flatten, _unflatten, serialized_type_name="fxkd.eager.CallInputs")


def with_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to the tensors in a value; containers that torch's pytree knows and dataclasses keep their type.

    >>> with_tensors(torch.neg, {"a": (torch.ones(1), "label")})
    {'a': (tensor([-1.]), 'label')}
    """

    def leaf(one: Any) -> Any:
        if isinstance(one, Tensor):
            return function(one)
        if not dataclasses.is_dataclass(one) or isinstance(one, type):
            return one
        return type(one)(**{field.name: with_tensors(function, getattr(one, field.name)) for field in fields(one)})

    return tree_map(leaf, value)


def cloned(value: Any) -> Any:
    """Clone the tensors in a value, gradients flow."""
    return with_tensors(torch.clone, value)


def detached(value: Any) -> Any:
    """Detach the tensors in a value from what made them.

    >>> detached((torch.ones(1, requires_grad=True) * 2, "label"))
    (tensor([2.]), 'label')
    """
    return with_tensors(Tensor.detach, value)


def module_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Give the record of a module's inputs: the tuple of positionals, with ``.kwargs`` if any keyword was given."""
    return CallInputs(args, dict(kwargs)) if kwargs else args


def function_inputs(place: Place) -> Callable[[tuple[Any, ...], dict[str, Any]], list[Any]]:
    """Give what makes the record of one call: positionals without ``self``, then keywords in signature order.

    Defaults are not filled in. Keywords that the signature does not name come last, in the order given.

    >>> def f(a, b=2, *, c=3): ...
    >>> function_inputs(Place(type("Holder", (), {"f": staticmethod(f)}), "f", "Holder.f"))((1,), {"c": 9, "b": 8})
    [1, 8, 9]
    """
    function, order = original(place), list[str]()
    with suppress(ValueError, TypeError):  # some builtins have no signature
        order = list(inspect.signature(function).parameters)
    first = bound_arguments(place)

    def record(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        names = [name for name in order if name in kwargs] + [name for name in kwargs if name not in order]
        return [*args[first:], *(kwargs[name] for name in names)]

    return record


def bound_arguments(place: Place) -> int:
    """Count the arguments that a call of the place gives by itself: ``self`` or ``cls``, or none."""
    if not isinstance(place.owner, type):
        return 0
    described = described_like(class_attribute(place.owner, place.name), original(place))
    return 0 if isinstance(described, staticmethod) else 1


def with_part(value: Any, data_idx: int | str, part: Any, where: str) -> Any:
    """Give ``value`` with one part replaced, its type unchanged.

    Raises:
        PointError: There is no such part; ``where`` begins the message.

    >>> with_part((1, 2), 0, 5, "here"), with_part({"a": 1}, "a", 5, "here")
    ((5, 2), {'a': 5})
    """
    pick(value, data_idx, where)
    if isinstance(value, tuple):
        parts = [*value]
        parts[int(data_idx)] = part
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    changed = copy.copy(value)
    changed[data_idx] = part
    return changed


def pick(record: Any, data_idx: int | str, where: str) -> Any:
    """Give one part of a record: by position of a list or tuple, by key of a mapping, by keyword of ``CallInputs``.

    Raises:
        PointError: There is no such part; ``where`` begins the message.
    """
    asked = f"{where}: data_idx={data_idx!r}"
    if isinstance(record, Mapping):
        return _pick_key(record, data_idx, asked)
    if isinstance(record, CallInputs) and isinstance(data_idx, str):
        return _pick_key(record.kwargs, data_idx, asked)
    if not isinstance(record, (list, tuple)):
        raise PointError(f"{asked}, but the record is one {type(record).__name__}: leave data_idx out.")
    if isinstance(data_idx, int) and -len(record) <= data_idx < len(record):
        return record[data_idx]
    raise PointError(f"{asked}, but the record is {_describe(record)}.")


def _pick_key(record: Mapping[Any, Any], key: int | str, asked: str) -> Any:
    if key in record or not hasattr(record, "__missing__"):  # a defaultdict would make the entry
        with suppress(KeyError, IndexError, TypeError):
            return record[key]
    has = ", ".join(map(repr, record)) or "nothing"
    raise PointError(f"{asked}, but the record has {has}." + did_you_mean(str(key), [str(name) for name in record]))


def _describe(record: list[Any] | tuple[Any, ...]) -> str:
    """Say what a list or tuple holds and how to ask for it."""
    types = ", ".join(type(value).__name__ for value in record)
    what = f"a {type(record).__name__} of {len(record)} ({types})" if record else f"an empty {type(record).__name__}"
    positions = f": use 0 to {len(record) - 1}" if len(record) > 1 else ": use 0" if record else ""
    if not isinstance(record, CallInputs):
        return what + positions
    keywords = " or ".join(f"data_idx={name!r}" for name in record.kwargs)
    if not record:
        return f"of a call with keywords only: use {keywords}"
    return f"{len(record)} positional value{'s' if len(record) > 1 else ''} and keywords{positions}, or {keywords}"
