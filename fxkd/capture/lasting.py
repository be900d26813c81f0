"""What a forward sets in something that outlasts the call, before a node takes it: a graph would not set it again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from fxkd.capture.contents import Contents, content_of, holders, is_empty, same_content, view_of
from fxkd.capture.heard import alike

Reads = Mapping[tuple[int, str], nn.Module]


class Lasting:
    """The modules of a model, and the objects that hang on them, as they were when a recording began.

    What nodes do to them is noted, as they do it again at every run; what is left was set by the forward itself.

    Args:
        model: What is recorded, its tensors already without values.
        contents: What hangs on it.
        moved: Whether they are others already than when the capture began; from the first change on they are.
    """

    def __init__(self, model: nn.Module, contents: Contents, *, moved: bool = False) -> None:
        self.moved = moved
        self._modules = {id(module): (module, _named(module)) for module in model.modules()}
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._objects = {id(holder): (holder, content_of(holder)) for holder in contents.objects}

    def set_among(self, reads: Reads) -> list[str]:
        """Name what was set of what a function reads."""
        asked = [(module, name) for (key, name), module in reads.items() if key in self._modules]
        changed = [(module, name) for module, name in asked if self._is_set(module, name)]
        return [f"{self._paths[id(module)]}.{name}".lstrip(".") for module, name in changed]

    def _is_set(self, module: nn.Module, name: str) -> bool:
        before, now = self._modules[id(module)][1].get(name), _named(module).get(name)
        is_same = before is now and id(now) in self._objects
        return self._is_other(now) if is_same else not alike(before, now)

    def set_in(self, given: Any) -> list[str]:
        """Name the objects of the model's own, among what a node is given, in which something was set."""
        return sorted({type(value).__name__ for value in self._lasting(given) if self._is_other(value)})

    def _is_other(self, value: Any) -> bool:
        return any(map(self._is_changed, _objects_below(value)))

    def set_below(self, contents: Contents) -> bool:
        """Tell whether something was set in what hangs on a module."""
        return any(self._is_changed(holder) for holder in contents.hanging)

    def _is_changed(self, holder: Any) -> bool:
        before = self._objects.get(id(holder))
        if before is None or (not before[1] and is_empty(holder)):
            return before is None
        now = view_of(holder)
        return not (same_content(before[1], now) or _all_alike(before[1], now))

    def note(self, given: Any) -> None:
        """Take the objects among what a node was given as they are now."""
        for value in self._lasting(given):
            self.moved |= self._is_other(value)
            self._take(value)

    def _take(self, value: Any) -> None:
        self._objects.update((id(part), (part, content_of(part))) for part in _objects_below(value))

    def note_module(self, module: nn.Module, contents: Contents) -> None:
        """Take a module that ran as one node and changed itself, and what is below it, as they are now."""
        self.moved = True
        self._modules.update((id(part), (part, _named(part))) for part in module.modules())
        self._objects.update((id(holder), (holder, content_of(holder))) for holder in contents.hanging)

    def _lasting(self, given: Any) -> list[Any]:
        return [value for value in _flat(given) if id(value) in self._objects]

    @contextmanager
    def noted(self) -> Iterator[list[nn.Module]]:
        """Take as it is afterwards what a function that is tried does to all that lasts; fill in which modules."""
        modules = [(module, known, _named(module)) for module, known in self._modules.values()]
        objects = [(holder, content_of(holder)) for holder, _ in self._objects.values()]
        others: list[nn.Module] = []
        yield others
        for module, known, before in modules:
            now = _named(module)
            changed = [name for name in now.keys() | before if not alike(before.get(name), now.get(name))]
            known.update((name, now.get(name)) for name in changed)
            others += [module] if changed else []
        for holder, content in objects:
            if not _all_alike(content, view_of(holder)):
                self._take(holder)
                self.moved = True
        self.moved |= bool(others)


def _all_alike(before: Any, now: Any) -> bool:
    if isinstance(now, dict):
        return before.keys() == now.keys() and all(alike(before[key], value) for key, value in now.items())
    return len(before) == len(now) and all(map(alike, before, now))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _flat(part)
    else:
        yield value


def _objects_below(value: Any) -> list[Any]:
    return [part for part in holders([value]) if not isinstance(part, nn.Module)]


def _named(module: nn.Module) -> dict[str, Any]:
    own = module.__dict__
    return {**own, **own["_parameters"], **own["_buffers"], **own["_modules"]}
