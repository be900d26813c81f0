"""What a forward sets in something that outlasts the call, before a node takes it: a graph would not set it again."""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from torch import nn

from fxkd.capture.held import PLAIN
from fxkd.capture.preserve import Contents, content_of, holders, refill, same_content, view_of
from fxkd.capture.tracked import Tracked

Reads = Mapping[tuple[int, str], nn.Module]


class Lasting:
    """The modules of a model, and the objects that hang on them, as they were when a recording began.

    Args:
        model: What is recorded, its tensors already without values.
        contents: What hangs on it.
    """

    def __init__(self, model: nn.Module, contents: Contents) -> None:
        self._modules = {id(module): _named(module) for module in model.modules()}
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._objects = {id(holder): (holder, content_of(holder)) for holder in contents.objects}

    def set_among(self, reads: Reads, ran_whole: Set[int]) -> list[str]:
        """Name what was set of what a function reads; what ran as one node sets its own again."""
        asked = [(module, name) for (key, name), module in reads.items() if key in self._modules.keys() - ran_whole]
        changed = [(module, name) for module, name in asked if self._is_set(module, name)]
        return [f"{self._paths[id(module)]}.{name}".lstrip(".") for module, name in changed]

    def _is_set(self, module: nn.Module, name: str) -> bool:
        before, now = self._modules[id(module)].get(name), _named(module).get(name)
        if before is now:
            return False
        is_plain = isinstance(now, PLAIN) and not isinstance(now, Tracked)
        return not is_plain or type(before) is not type(now) or bool(before != now)

    def set_in(self, given: Any) -> list[str]:
        """Name the objects of the model's own, among what a node is given, in which something was set."""
        return sorted({type(value).__name__ for value in self._lasting(given) if self._is_other(value)})

    def _is_other(self, value: Any) -> bool:
        for part in _holders([value]):
            known = self._objects.get(id(part))
            if known is None or not same_content(view_of(part), known[1]):
                return True
        return False

    def note(self, given: Any) -> None:
        """Take objects as they are now: a node that ran did this to them, and does it again."""
        for value in self._lasting(given):
            self._objects.update((id(part), (part, content_of(part))) for part in _holders([value]))

    def _lasting(self, given: Any) -> list[Any]:
        return [value for value in _flat(given) if id(value) in self._objects]

    @contextmanager
    def kept(self, given: Any) -> Iterator[None]:
        """Let a function that is only tried leave nothing behind in modules and objects that it is given."""
        modules = [value for value in _flat(given) if isinstance(value, nn.Module)]
        objects = [value for value in _flat(given) if not isinstance(value, nn.Module)]
        before = [(part, content_of(part)) for part in (*modules, *_holders(objects))]
        try:
            yield
        finally:
            for part, content in before:
                if not same_content(view_of(part), content):
                    refill(part, content)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _flat(part)
    else:
        yield value


def _holders(values: list[Any]) -> list[Any]:
    return [part for part in holders(values) if not isinstance(part, nn.Module)]


def _named(module: nn.Module) -> dict[str, Any]:
    own = module.__dict__
    return {**own, **own["_parameters"], **own["_buffers"], **own["_modules"]}
