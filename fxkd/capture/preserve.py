"""Leave no trace: a model, the random generators and the grad mode are after a capture what they were before."""

import gc
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper, cached_property
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fxkd.capture.generators import Generators

CONTAINERS = (dict, list, set, deque)
EMPTY = {*CONTAINERS, OrderedDict}  # known to be empty without a look at attributes
NOT_STATE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, Tensor, str, bytes, int, float)
LIBRARIES = ("torch.", "sympy.", "fxkd.")  # whose caches hold no tensors of a run
MODULES_OWN = frozenset(nn.Module().__dict__)
DEEP = 8  # how far below a module state is looked for


@contextmanager
def preserved(model: nn.Module, *, values: bool = False, contents: "Contents | None" = None) -> Iterator[None]:
    """Put back attributes, containers, random states and the grad mode at the end, also on failure.

    Args:
        model: What is about to run.
        values: Whether the run is on real tensors, so that parameters and buffers must be kept too.
        contents: What the model holds, where that is known.
    """
    contents = contents or Contents(model)
    copies = contents.copies if values else []
    own = contents.generators
    grad, states, own_states = torch.is_grad_enabled(), random_states(), own.states()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        set_random_states(states)
        own.put_back(own_states)
        contents.put_back()
        put_back_values(copies)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage: in a large program that takes longer than many captures."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Contents:
    """What a model, and what hangs on it, holds in attributes and containers."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._parts = model, dict[int, Contents]()
        self._kept = [(holder, content_of(holder)) for holder in holders(model.modules())]

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

    def _changed(self) -> list[tuple[Any, Any]]:
        return [
            (holder, content)
            for holder, content in self._kept
            if not ((not content and is_empty(holder)) or same_content(view_of(holder), content))
        ]

    def changed(self) -> bool:
        """Tell whether anything is another object now."""
        return bool(self._changed())

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
        for holder, content in self._changed():
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


class Caches:
    """Every ``lru_cache`` outside torch: a tensor without values must not stay in one."""

    def __init__(self) -> None:
        held = [held for held in gc.get_referrers(_lru_cache_wrapper) if type(held) is _lru_cache_wrapper]
        own = [cache for cache in held if not str(getattr(cache, "__module__", "")).startswith(LIBRARIES)]
        self._misses = [(cache, cache.cache_info().misses) for cache in own]

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Empty at the end those into which something was put; an emptied one counts from nothing."""
        try:
            yield
        finally:
            for place, (cache, misses) in enumerate(self._misses):
                if cache.cache_info().misses != misses:
                    cache.cache_clear()
                    self._misses[place] = cache, 0


def put_back_values(buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Write back what changed; what did not is not touched, as somebody's backward may need it."""
    with torch.no_grad():
        for buffer, value in buffers:
            if not buffer.is_meta and not torch.equal(buffer, value):
                buffer.copy_(value)


def drawn_state() -> tuple[Any, ...]:
    """Give the states of Python's and numpy's global generators, comparable by ``==``."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    return random.getstate(), (name, keys.tobytes(), position, has_gauss, gauss)


def set_drawn_state(state: tuple[Any, ...]) -> None:
    """Set Python's and numpy's global generators to a state that ``drawn_state`` gave."""
    random.setstate(state[0])
    if len(state) > 1:
        numpy, (name, keys, *others) = sys.modules["numpy"], state[1]
        numpy.random.set_state((name, numpy.frombuffer(keys, dtype=numpy.uint32), *others))


def shift_drawn_state() -> None:
    """Move every global generator on, so that the next draws are others."""
    random.random()
    torch.rand(1)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.random()


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def random_states() -> dict[str, Any]:
    """Copy the state of every global random generator."""
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state() if numpy else None,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set every global random generator to a state that ``random_states`` gave."""
    random.setstate(states["python"])
    if states["numpy"] is not None:
        sys.modules["numpy"].random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state_all(states["cuda"])
