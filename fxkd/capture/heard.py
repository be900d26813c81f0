"""What a program, or a named function of it, asks of its modules and sets in them while it runs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from torch import nn

from fxkd.capture.contents import MODULES_OWN, holders
from fxkd.capture.held import PLAIN, read
from fxkd.capture.lines import LIBRARIES
from fxkd.capture.tracked import Tracked
from fxkd.patcher import patched

Refuse = Callable[[str], NoReturn]  # given the name
Names = dict[tuple[int, str], nn.Module]  # a module's identity and a name in it -> the module


class Listener(Protocol):
    """Who is told what is read.

    Args:
        listening: Whether what runs is of interest.
        reads: What was read.
        unseen: What named functions have set, by module and name, and how to refuse who reads that.
        unseen_below: The same of objects that hang on modules, by identity.
    """

    listening: bool
    reads: Names
    unseen: dict[tuple[int, str], Refuse]
    unseen_below: dict[int, Refuse]


@dataclass(slots=True)
class Ear:
    """Listens to named functions alone."""

    listening: bool = False
    reads: Names = field(default_factory=dict)
    sets: Names = field(default_factory=dict)
    unseen: dict[tuple[int, str], Refuse] = field(default_factory=dict)
    unseen_below: dict[int, Refuse] = field(default_factory=dict)

    @contextmanager
    def one_call(self) -> Iterator[tuple[Names, Names]]:
        """Give what is read and what is set inside; a call around this one has read and set that too."""
        outer = self.listening, self.reads, self.sets
        self.listening, self.reads, self.sets = True, {}, {}
        try:
            yield self.reads, self.sets
        finally:
            outer[1].update(self.reads)
            outer[2].update(self.sets)
            self.listening, self.reads, self.sets = outer


@contextmanager
def noted_reads(listener: Listener) -> Iterator[None]:
    """Let ``listener.reads`` collect which attributes of modules are asked for."""

    def get(module: nn.Module, name: str) -> Any:
        if listener.listening and (not name.startswith("__") or name == "__dict__"):
            if name == "__dict__":
                if not sys._getframe(1).f_code.co_filename.startswith(LIBRARIES):
                    listener.reads.update(((id(module), one), module) for one in _own_names(module))
            else:
                listener.reads[id(module), name] = module
                if listener.unseen and (id(module), name) in listener.unseen:
                    listener.unseen[id(module), name](name)
                if listener.unseen_below:
                    _refuse_below(listener, module, name)
        return object.__getattribute__(module, name)

    before = vars(nn.Module).get("__getattribute__")
    setattr(nn.Module, "__getattribute__", get)  # noqa: B010
    try:
        yield
    finally:
        if before is None:
            delattr(nn.Module, "__getattribute__")
        else:
            setattr(nn.Module, "__getattribute__", before)  # noqa: B010


@contextmanager
def noted_sets(ear: Ear) -> Iterator[None]:
    """Let ``ear.sets`` collect which attributes of modules become others."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(module: nn.Module, name: str, value: Any) -> None:
            if ear.listening and not alike(read(module, name), value):
                ear.sets[id(module), name] = module
            original(module, name, value)

        return change

    with patched(nn.Module, "__setattr__", wrap):
        yield


def alike(before: Any, now: Any) -> bool:
    """Tell whether both are one object, or one number or text that was no other before."""
    is_plain = isinstance(now, PLAIN) and not isinstance(now, Tracked)
    return before is now or (is_plain and type(before) is type(now) and bool(before == now))


def _refuse_below(listener: Listener, module: nn.Module, name: str) -> None:
    value = read(module, name)
    if isinstance(value, nn.Module) or name in MODULES_OWN or name not in object.__getattribute__(module, "__dict__"):
        return
    for refuse in [listener.unseen_below[id(part)] for part in holders([value]) if id(part) in listener.unseen_below]:
        refuse(name)


def _own_names(module: nn.Module) -> list[str]:
    return [name for name in object.__getattribute__(module, "__dict__") if name not in MODULES_OWN]
