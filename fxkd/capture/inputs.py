"""The arguments of a call: which are tensors (free at every call) and which are constants (fixed by the capture)."""

import inspect
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.capture.held import form_of
from fxkd.capture.structure import tensors
from fxkd.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Inputs:
    """The positional and keyword arguments of one call.

    >>> Inputs.of({"input_ids": torch.zeros(2, 5)}).kwargs["input_ids"].shape
    torch.Size([2, 5])
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: tuple[Any, Any] = self.args, self.kwargs
        args, kwargs = given
        if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
            kinds = f"{type(args).__name__} and {type(kwargs).__name__}"
            raise CaptureError(
                f"fxkd.Inputs is given {kinds}: it takes a tuple of positional arguments, also of one, as in "
                "fxkd.Inputs((x,)), and a dict of keyword arguments"
            )

    @classmethod
    def of(cls, given: Any) -> "Inputs":
        """Read ``example_inputs``: a tuple of positionals, a mapping of keywords, ``Inputs``, or one tensor."""
        if isinstance(given, Inputs):
            return given
        if isinstance(given, Tensor):
            return cls((given,))
        if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
            return cls((), dict(given))
        if isinstance(given, tuple):
            return cls(given)
        raise CaptureError(
            f"example_inputs is a {type(given).__name__}; give a tuple of positional arguments, "
            "a dict of keyword arguments, or fxkd.Inputs(args, kwargs)"
        )


def with_rows(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Change the rows of every tensor that has as many as the first one.

    >>> with_rows(Inputs((torch.tensor([1, 2]),)), lambda tensor: tensor.flip(0)).args[0].tolist()
    [2, 1]
    """
    given = [tensor for tensor in tensors((inputs.args, inputs.kwargs)) if tensor.dim()]
    count = given[0].shape[0] if given else 0

    def changed(tensor: Tensor) -> Tensor:
        if not count or not tensor.dim() or tensor.shape[0] != count:
            return tensor
        return change(tensor.detach()).requires_grad_(tensor.requires_grad)

    args, kwargs = pytree.tree_map_only(Tensor, changed, (inputs.args, inputs.kwargs))
    return Inputs(args, kwargs)


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a call: a graph is good for every call of the same layout.

    Args:
        spec: How ``(args, kwargs)`` nests.
        names: A placeholder's name for each tensor, in order.
        kinds: Data type, device and number of dimensions of each tensor: a program may branch on them.
        constants: What else was given, in order.
        is_tensor: For each leaf of the call, whether a tensor stands there.
        forms: What each constant was made of: an array or object may change in place.
    """

    spec: pytree.TreeSpec
    names: tuple[str, ...]
    kinds: tuple[tuple[torch.dtype, torch.device, int], ...]
    constants: tuple[Any, ...]
    is_tensor: tuple[bool, ...]
    forms: tuple[Any, ...]

    @classmethod
    def of(cls, inputs: Inputs, model: nn.Module) -> "Layout":
        """Read the layout of a call of ``model``."""
        pairs, spec = pytree.tree_flatten_with_path((inputs.args, inputs.kwargs))
        positional = _positional_names(model)
        names: list[str] = []
        for path, value in pairs:
            if isinstance(value, Tensor):
                names.append(_unused(_placeholder_name(path, positional), names))
            else:
                _refuse_hidden_tensor(value, path)
        tensors = [value for _, value in pairs if isinstance(value, Tensor)]
        constants = tuple(value for _, value in pairs if not isinstance(value, Tensor))
        is_tensor = tuple(isinstance(value, Tensor) for _, value in pairs)
        return cls(spec, tuple(names), kinds_of(tensors), constants, is_tensor, tuple(map(form_of, constants)))

    def matches(self, spec: pytree.TreeSpec, tensors: list[Tensor], constants: list[Any]) -> bool:
        """Tell whether a call, taken apart by ``split``, has this layout."""
        if self.spec != spec or self.kinds != kinds_of(tensors) or len(constants) != len(self.constants):
            return False
        if torch.compiler.is_compiling():  # which cannot look into objects
            return all(_same(given, kept) for given, kept in zip(constants, self.constants, strict=True))
        return all(form_of(given) == form for given, form in zip(constants, self.forms, strict=True))

    def is_like(self, other: "Layout") -> bool:
        """Tell whether two layouts are of the same form of call."""
        same = (self.spec, self.kinds, self.is_tensor) == (other.spec, other.kinds, other.is_tensor)
        return same and self.forms == other.forms

    def fill(self, tensors: list[Any]) -> Inputs:
        """Make a call of this layout out of ``tensors``."""
        free, fixed = iter(tensors), iter(self.constants)
        leaves = [next(free) if is_tensor else next(fixed) for is_tensor in self.is_tensor]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return Inputs(args, kwargs)


def split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[pytree.TreeSpec, list[Tensor], list[Any]]:
    """Take a call apart: how it nests, its tensors, the rest."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return spec, tensors, [leaf for leaf in leaves if not isinstance(leaf, Tensor)]


def kinds_of(tensors: list[Tensor]) -> tuple[tuple[torch.dtype, torch.device, int], ...]:
    """Give what a program may branch on without asking for a size: type, device, number of dimensions."""
    return tuple((tensor.dtype, tensor.device, tensor.dim()) for tensor in tensors)


def _same(given: Any, kept: Any) -> bool:
    if given is kept or type(given) is not type(kept):
        return given is kept
    if isinstance(given, (bool, int, float, str)):
        return bool(given == kept)
    if hasattr(given, "shape"):
        return bool(given.shape == kept.shape and (given == kept).all())  # an array
    return bool(given == kept)


def _positional_names(model: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError:  # no code of Python's
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _placeholder_name(path: tuple[Any, ...], positional: list[str]) -> str:
    """Name a tensor by its place: the parameter it is given for, then the way inside."""
    where, first, rest = path[0].idx, path[1], path[2:]
    if where == 0:
        head = positional[first.idx] if first.idx < len(positional) else f"input_{first.idx}"
    else:
        head = first.key
    name = re.sub(r"\W+", "_", head + pytree.keystr(rest)).strip("_") or "input"
    return f"{name}_" if keyword.iskeyword(name) else name if name[0].isalpha() else f"input_{name}"


def _unused(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _refuse_hidden_tensor(value: Any, path: tuple[Any, ...]) -> None:
    inside = [key for key, held in getattr(value, "__dict__", {}).items() if isinstance(held, Tensor)]
    if inside:
        raise CaptureError(
            f"the input at {pytree.keystr(path)} is a {type(value).__name__}, which holds the tensor {inside[0]!r}: "
            "its tensors would be frozen. Register the class (torch.utils._pytree.register_dataclass), "
            "or give the tensors in a dict, list or tuple"
        )
