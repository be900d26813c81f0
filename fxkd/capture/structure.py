"""What values are made of: the tensors inside lists, dicts, dataclasses, and the memory they live in."""

import copy
import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

BARE = {Tensor, nn.Parameter, FakeTensor, int, float, bool, str, type(None)}


def parts(value: Any) -> Iterator[tuple[Any, Callable[..., Any], Any]]:
    """Yield what a container holds, how to reach it and by which key."""
    if isinstance(value, (tuple, list)):
        yield from ((item, operator.getitem, index) for index, item in enumerate(value))
    elif isinstance(value, Mapping):
        yield from ((item, operator.getitem, key) for key, item in value.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((getattr(value, field.name), getattr, field.name) for field in dataclasses.fields(value))


def leaves(value: Any) -> Iterator[Any]:
    """Yield what is inside ``value`` and holds nothing itself; a bare value yields itself."""
    if type(value) in BARE:
        yield value
    elif isinstance(value, (tuple, list, Mapping)) or dataclasses.is_dataclass(value):
        for part, _, _ in parts(value):
            yield from leaves(part)
    else:
        yield value


def mapped(kind: type, change: Callable[[Any], Any], value: Any) -> Any:
    """Give ``value`` with every part of a kind changed, inside dataclasses too; what holds none stays what it is."""

    def leaf(part: Any) -> Any:
        if isinstance(part, kind):
            return change(part)
        if not dataclasses.is_dataclass(part) or isinstance(part, type):
            return part
        fields = [(key, held, mapped(kind, change, held)) for held, _, key in parts(part)]
        if all(now is held for _, held, now in fields):
            return part
        made = copy.copy(part)
        for key, _, now in fields:
            object.__setattr__(made, key, now)
        return made

    return pytree.tree_map(leaf, value)


def tensors(value: Any) -> list[Tensor]:
    """List the tensors inside ``value``."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def storages(value: Any) -> frozenset[int]:
    """Give the identities of the memory that the tensors in ``value`` live in."""
    with torch._C.DisableTorchFunction():
        return frozenset(t.untyped_storage()._cdata for t in tensors(value) if t.layout is torch.strided)


def versions(value: Any) -> list[tuple[Tensor, int]]:
    """Note the version of each tensor inside ``value``: torch counts every write."""
    with torch._C.DisableTorchFunction():
        return [(tensor, tensor._version) for tensor in tensors(value) if not tensor.is_inference()]


def written(before: list[tuple[Tensor, int]]) -> frozenset[int]:
    """Give the memory of the tensors that were written to since ``versions`` was asked."""
    with torch._C.DisableTorchFunction():
        changed = [tensor for tensor, version in before if tensor._version != version]
    return storages(changed)
