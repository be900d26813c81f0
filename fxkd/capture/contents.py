"""What modules, and the objects that hang on them, hold in attributes and containers: kept, compared, put back."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from functools import cached_property
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from fxkd.capture.generators import Generators
from fxkd.capture.structure import storages

CONTAINERS = (dict, list, set, deque)
EMPTY = {*CONTAINERS, OrderedDict}  # known to be empty without a look at attributes
NOT_STATE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, Tensor, str, bytes, int, float)
MODULES_OWN = frozenset(nn.Module().__dict__)
DEEP = 8  # how far below a module state is looked for


class Contents:
    """What a model, and what hangs on it, holds in attributes and containers.

    Attributes:
        is_unset: Whether it holds what it held when the capture began, or what counts as the same.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._parts = model, dict[int, Contents]()
        self._kept = [(holder, content_of(holder)) for holder in holders(model.modules())]
        self._empty = [holder for holder, content in self._kept if not content and type(holder) in EMPTY]
        self._filled = [(holder, content) for holder, content in self._kept if content or type(holder) not in EMPTY]
        self.is_unset = False

    @cached_property
    def generators(self) -> Generators:
        """The random generators that are the model's own."""
        held = [part for _, content in self._kept for part in _items(content)]
        return Generators.of(self._model, [*(holder for holder, _ in self._kept), *held])

    @cached_property
    def objects(self) -> list[Any]:
        """What hangs on the modules."""
        return [holder for holder, _ in self._kept if not isinstance(holder, nn.Module)]

    @cached_property
    def hanging(self) -> list[Any]:
        """Those of them in which the modules do not hold their own parts and hooks."""
        held = [holder.__dict__ for holder, _ in self._kept if isinstance(holder, nn.Module)]
        own = {id(own[name]) for own in held for name in MODULES_OWN if name in own}
        return [holder for holder in self.objects if id(holder) not in own]

    @cached_property
    def modules(self) -> list[nn.Module]:
        """The module and all below it, as long as nothing changed."""
        return list(self._model.modules())

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Its parameters and buffers, as long as nothing changed."""
        return [*self._model.parameters(), *self._model.buffers()]

    @cached_property
    def memory(self) -> frozenset[int]:
        """The memory of all tensors in it."""
        return storages([part for _, content in self._kept for part in _items(content) if isinstance(part, Tensor)])

    @cached_property
    def is_stateful(self) -> bool:
        """Whether a call may do more than give a value: move statistics, run somebody's hooks."""
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in self.modules)
        return hooked or any(True for _ in self._model.buffers())

    def changed(self) -> bool:
        """Tell whether anything is another object now."""
        return any(self._empty) or any(not same_content(view_of(holder), content) for holder, content in self._filled)

    def of(self, module: nn.Module) -> "Contents":
        """Give what a module of the model, and what hangs on it, holds now."""
        known = self._parts.get(id(module))
        if known is None or known.changed():
            known = self._parts[id(module)] = Contents(module)
        return known

    @cached_property
    def copies(self) -> list[tuple[Tensor, Tensor]]:
        """The tensors of the model, each with a copy of what it held when first asked."""
        return [(tensor, tensor.detach().clone()) for tensor in _tensors(self._model)]

    def put_back(self) -> None:
        """Let everything hold what it held."""
        for holder, content in self._kept:
            if not ((not content and is_empty(holder)) or same_content(view_of(holder), content)):
                refill(holder, content)


def _tensors(model: nn.Module) -> list[Tensor]:
    plain = [value for module in model.modules() for value in module.__dict__.values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *plain]


def holders(level: Iterable[Any]) -> list[Any]:
    """List some modules or objects and what hangs on them: whatever may keep state during a run."""
    found: dict[int, Any] = {}
    for _ in range(DEEP):
        level = [value for value in level if _may_hold(value) and found.setdefault(id(value), value) is value]
        level = [part for value in level for part in _parts(value) if id(part) not in found]
    return list(found.values())


def _may_hold(value: Any) -> bool:
    kind = type(value)
    if issubclass(kind, NOT_STATE):
        return False
    return issubclass(kind, CONTAINERS) or hasattr(value, "__dict__") or bool(slots(kind))


def _parts(value: Any) -> list[Any]:
    return _items(view_of(value))


def _items(content: Any) -> list[Any]:
    return list(content.values()) if isinstance(content, dict) else list(content)


def view_of(holder: Any) -> Any:
    """Give what a container or an object holds; it may be the very thing in which that is held."""
    if isinstance(holder, CONTAINERS):
        return holder
    named = slots(type(holder))
    held = getattr(holder, "__dict__", {})
    return {**held, **{name: getattr(holder, name) for name in named if hasattr(holder, name)}} if named else held


def is_empty(holder: Any) -> bool:
    """Tell whether it is a container with nothing in it, as most that hang on modules are."""
    return type(holder) in EMPTY and not holder


def content_of(holder: Any) -> Any:
    """Copy what a container or an object holds now."""
    content = view_of(holder)
    return dict(content) if isinstance(content, dict) else list(content)


_slots: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()


def slots(kind: type) -> tuple[str, ...]:
    """Name the attributes that live in slots."""
    if kind not in _slots:
        _slots[kind] = _named_slots(kind)
    return _slots[kind]


def _named_slots(kind: type) -> tuple[str, ...]:
    named = [vars(cls).get("__slots__", ()) for cls in kind.__mro__]
    names = [name for names in named for name in ([names] if isinstance(names, str) else names)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def same_content(one: Any, other: Any) -> bool:
    """Tell whether both hold the very same things."""
    if len(one) != len(other) or not all(map(is_, one, other)):
        return False
    return not isinstance(other, dict) or all(map(is_, one.values(), other.values()))


def refill(holder: Any, content: Any) -> None:
    """Let a container or an object hold what ``content_of`` copied."""
    if isinstance(holder, CONTAINERS):
        holder.clear()
        holder.extend(content) if isinstance(holder, (list, deque)) else holder.update(content)
        return
    named = slots(type(holder))
    for name in named:
        if name in content:
            setattr(holder, name, content[name])
    if hasattr(holder, "__dict__"):
        holder.__dict__.clear()
        holder.__dict__.update({name: value for name, value in content.items() if name not in named})
