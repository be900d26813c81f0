"""What a recorded program read from its modules: a graph is good while they hold the same."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.capture.contents import slots
from fxkd.points import MISSING, class_attribute

PLAIN = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
FUNCTIONS = (FunctionType, BuiltinFunctionType)
OPAQUE = (nn.Module, type, ModuleType)
DEEP = 6  # how far into the objects that a module holds
MANY = 2000  # parts that are looked at; what lies beyond counts as one thing
LARGE = 1 << 20  # bytes of an array that is compared by value
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
FLAG = "training"  # kept for every module, read or not


@dataclass(frozen=True, slots=True)
class Held:
    """What ``module.name`` was when the forward that reads it was recorded."""

    module: nn.Module
    name: str
    form: Any

    @classmethod
    def of(cls, module: nn.Module, name: str) -> "Held":
        """Note what the module holds now."""
        return cls(module, name, form_of(read(module, name)))

    def holds(self) -> bool:
        """Tell whether the module holds the same as then."""
        return bool(form_of(read(self.module, self.name)) == self.form)

    @property
    def is_number(self) -> bool:
        """Whether it is a number, a text or a truth of the module's own."""
        return isinstance(self.form, tuple) and self.form[0] in (int, float, bool, str)


def held_by(reads: dict[tuple[int, str], nn.Module]) -> tuple[Held, ...]:
    """Note what the modules that were read hold now."""
    return tuple(Held.of(module, name) for (_, name), module in reads.items() if name != FLAG)


def form_of(value: Any) -> Any:
    """Give what must stay the same for a graph to go on holding.

    Of a tensor that is all but its values, and the tensor itself where it is inside a container or an object.

    >>> form_of({"scale": 2.0}) == form_of({"scale": 2.0}), form_of([1]) == form_of([True])
    (True, False)
    """
    return _Former().of(value, 0)


def alike(one: Any, other: Any) -> bool:
    """Tell whether two objects that a forward made, one at each call, are of one kind and content.

    Of a module's tensors only the form can be compared: a recording makes them without values.

    >>> alike(nn.Dropout(0.5), nn.Dropout(0.5)), alike(nn.Dropout(0.5), nn.Dropout(0.1))
    (True, False)
    """
    if not isinstance(one, nn.Module) or not isinstance(other, nn.Module):
        return bool(form_of(one) == form_of(other))
    parts, others = dict(one.named_modules()), dict(other.named_modules())
    return parts.keys() == others.keys() and all(_own_form(parts[name]) == _own_form(others[name]) for name in parts)


def _own_form(module: nn.Module) -> Any:
    """Give the form of what a module itself holds, its parts left out."""
    plain = {key: value for key, value in module.__dict__.items() if key != "_modules"}
    held = {key: value for name in ("_parameters", "_buffers") for key, value in plain.pop(name).items()}
    return type(module), form_of(plain), [(key, None if t is None else _tensor_form(t)) for key, t in held.items()]


class _Former:
    """Make forms; an object that holds itself, and parts beyond ``MANY``, count as one thing."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.left = MANY

    def of(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if isinstance(value, PLAIN):
            return type(value), value
        if isinstance(value, Tensor):
            return (*_tensor_form(value), _Same(value) if depth else None)
        if isinstance(value, FUNCTIONS) or (isinstance(value, MethodType) and depth):
            return _Callable(value)  # a hook's object may change at every step
        if type(value).__module__ == "numpy" and getattr(value, "nbytes", LARGE) < LARGE:
            return type(value), str(value.dtype), value.shape, value.tobytes()
        content = None if depth >= DEEP or self.left < 0 or id(value) in self.seen else _content(value)
        if content is None:
            return _Same(value)
        self.seen.add(id(value))
        return type(value), tuple((key, self.of(part, depth + 1)) for key, part in content)


def _tensor_form(value: Tensor) -> tuple[Any, ...]:
    stride = value.stride() if value.layout is torch.strided else None
    return Tensor, value.dtype, value.device, tuple(value.shape), stride, value.requires_grad


def _content(value: Any) -> list[tuple[Any, Any]] | None:
    """List the parts of a container or a plain object; None for what counts as one thing."""
    if isinstance(value, OPAQUE) or value is MISSING:
        return None
    if isinstance(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, MethodType):
        return [("function", value.__func__), ("object", value.__self__)]
    own = list(getattr(value, "__dict__", {}).items())
    own += [(name, getattr(value, name)) for name in slots(type(value)) if hasattr(value, name)]
    if isinstance(value, dict):
        return [*value.items(), *own]
    if isinstance(value, (list, tuple, deque)):
        return [*enumerate(value), *own]
    if isinstance(value, (set, frozenset)):
        return sorted(((repr(part), part) for part in value), key=lambda item: item[0])
    known = own or hasattr(value, "__dict__") or bool(slots(type(value)))
    return [*own, *_class_constants(type(value))] if known else None


def _class_constants(kind: type) -> list[tuple[str, Any]]:
    """List the numbers and texts that a class and its bases hold."""
    held = [item for base in kind.__mro__ for item in vars(base).items()]
    return [(name, value) for name, value in held if isinstance(value, PLAIN) and not name.startswith("__")]


class _Same:
    """Equal to what holds the very same object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value is self.value

    __hash__ = object.__hash__


class _Callable(_Same):
    """Equal to what calls the same function, a bound method on the same object."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(other.value == self.value)

    __hash__ = object.__hash__


def read(module: nn.Module, name: str) -> Any:
    """Give what the module itself holds under ``name``, or else its class."""
    own: dict[str, Any] = module.__dict__
    for holder in (own, *(own.get(key, {}) for key in ("_parameters", "_buffers", "_modules"))):
        if name in holder:
            return holder[name]
    return class_attribute(type(module), name)


class Parts:
    """What each module of a model is made of: a leaf that a forward changes before its call must be looked into."""

    def __init__(self, model: nn.Module) -> None:
        self._known: dict[int, tuple[Any, ...]] = {}
        self.note(model)

    def note(self, module: nn.Module) -> None:
        """Note what a module and those below it hold now."""
        for part in module.modules():
            self.note_own(part)

    def note_own(self, module: nn.Module) -> None:
        """Note what a module alone holds now."""
        self._known[id(module)] = _made_of(module)

    def changed(self, module: nn.Module) -> bool:
        """Tell whether it, or one below it, was given something else since."""
        return any(self._known.get(id(part)) != _made_of(part) for part in module.modules())


def _made_of(module: nn.Module) -> tuple[Any, ...]:
    own = module.__dict__
    plain = [(key, value if isinstance(value, PLAIN) else id(value)) for key, value in own.items()]
    held = [(key, id(part)) for name in ("_parameters", "_buffers", "_modules") for key, part in own[name].items()]
    return *plain, *held, *(id(hook) for name in HOOKS for hook in own[name].values())


def kinds_and_hooks(modules: Iterable[nn.Module]) -> tuple[frozenset[Any], tuple[int, ...]]:
    """Give the types and devices of all parameters, and the hooks of all modules, whether read or not."""
    held = [module.__dict__ for module in modules]
    kinds = {(p.dtype, p.device) for own in held for p in own["_parameters"].values() if p is not None}
    return frozenset(kinds), tuple(id(hook) for own in held for name in HOOKS for hook in own[name].values())
