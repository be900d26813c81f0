"""The patcher: what it replaces, and that it puts back exactly what was there."""

import builtins
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partialmethod
from threading import Barrier, Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fxkd.errors import PointError
from fxkd.patcher import own, patched


class Base:
    def method(self, x: Any = 1) -> Any:
        return "base", x

    @staticmethod
    def static(x: Any = 1) -> Any:
        return "static", x

    @classmethod
    def named(cls, x: Any = 1) -> Any:
        return cls.__name__, x

    partial = partialmethod(method, 5)
    root: Any = math.sqrt  # a builtin is not bound


class Sub(Base):
    """Inherits everything."""


class Other(Base):
    def method(self, x: Any = 1) -> Any:
        return "other", x


class Diamond(Sub, Other):
    """Finds ``method`` in ``Other``, behind ``Sub``."""


def marked(mark: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a wrap that adds ``mark`` to what is returned."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return mark, function(*args, **kwargs)

        return call

    return wrap


@contextmanager
def unchanged(owner: object, name: str) -> Iterator[None]:
    """Check that ``owner`` holds the identical object, or none, afterwards, in the same order of names."""
    before, names = own(owner, name), list(vars(owner))
    yield
    assert own(owner, name) is before
    assert list(vars(owner)) == names


CALLS: list[tuple[Any, str, Callable[[], Any]]] = [
    (math, "sqrt", lambda: math.sqrt(4)),
    (Base, "method", lambda: Base().method(2)),
    (Base, "method", lambda: Sub().method(x=2)),
    (Base, "static", lambda: Base().static(2)),
    (Base, "static", lambda: Base.static(2)),
    (Base, "named", lambda: Base.named(2)),
    (Base, "named", lambda: Sub().named(2)),
    (Base, "partial", lambda: Base().partial()),
    (Base, "root", lambda: Base().root(4)),
    (Sub, "method", lambda: Sub().method(2)),
    (Sub, "method", lambda: Diamond().method(2)),
    (Sub, "static", lambda: Sub.static(2)),
    (Sub, "named", lambda: Sub().named(2)),
    (Sub, "named", lambda: Diamond.named(2)),
    (Sub, "partial", lambda: Sub().partial()),
    (Sub, "root", lambda: Sub().root(4)),
]


@pytest.mark.parametrize(("owner", "name", "call"), CALLS)
def test_wraps_and_restores(owner: Any, name: str, call: Callable[[], Any]) -> None:
    plain = call()
    with unchanged(owner, name), patched(owner, name, marked(1)):
        assert call() == (1, plain)
    assert call() == plain


@pytest.mark.parametrize(("owner", "name", "call"), CALLS)
def test_restores_after_a_failure(owner: Any, name: str, call: Callable[[], Any]) -> None:
    with unchanged(owner, name), pytest.raises(KeyError), patched(owner, name, marked(1)):
        raise KeyError
    with unchanged(owner, name), pytest.raises(ZeroDivisionError), patched(owner, name, lambda function: 1 / 0):  # type: ignore[arg-type,return-value]
        pass


@pytest.mark.parametrize(("owner", "name", "call"), CALLS)
def test_nests(owner: Any, name: str, call: Callable[[], Any]) -> None:
    plain = call()
    with unchanged(owner, name), ExitStack() as stack:
        for mark in range(3):
            stack.enter_context(patched(owner, name, marked(mark)))
        assert call() == (2, (1, (0, plain)))


@pytest.mark.parametrize("order", [(Base, Sub), (Sub, Base)])
def test_base_and_subclass_in_any_order(order: tuple[type, type]) -> None:
    marks: dict[type, str] = {Base: "base", Sub: "sub"}
    with ExitStack() as stack:
        for owner in order:
            stack.enter_context(unchanged(owner, "method"))
            stack.enter_context(patched(owner, "method", marked(marks[owner])))
        assert Sub().method() == ("sub", ("base", ("base", 1)))
        assert Base().method() == ("base", ("base", 1))
        assert Diamond().method() == ("sub", ("other", 1))


def test_forward_of_one_module() -> None:
    relu, other = nn.ReLU(), nn.ReLU()
    x = torch.tensor([-1.0])
    with unchanged(relu, "forward"), patched(relu, "forward", marked(1)):
        assert relu(x)[0] == 1
        assert other(x).item() == 0
    relu.forward = lambda x: x  # type: ignore[method-assign,assignment]
    with unchanged(relu, "forward"), patched(relu, "forward", marked(1)):
        assert relu(x) == (1, x)
    assert relu(x).item() == -1


def test_forward_of_a_class_patched_after_the_module() -> None:
    relu = nn.ReLU()
    with patched(relu, "forward", marked("module")), patched(nn.ReLU, "forward", marked("class")):
        assert relu(torch.tensor(1.0)) == ("module", ("class", torch.tensor(1.0)))


def test_namespace_and_lazy_module() -> None:
    space = SimpleNamespace(f=lambda: 1)
    with unchanged(space, "f"), patched(space, "f", marked(2)):
        assert space.f() == (2, 1)
    lazy = ModuleType("lazy")
    lazy.__getattr__ = lambda name: lambda: name  # type: ignore[method-assign]
    with unchanged(lazy, "f"), patched(lazy, "f", marked(2)):
        assert lazy.f() == (2, "f")


def test_called_through_the_class_with_another_kind_of_object() -> None:
    class Virtual(ABC):
        @abstractmethod
        def nothing(self) -> None: ...

    class Named(Virtual):
        """Inherits ``__repr__``."""

    Named.register(int)
    with patched(Named, "__repr__", marked(1)):
        assert Named.__repr__(3) == (1, object.__repr__(3))  # type: ignore[comparison-overlap]


def test_errors() -> None:
    with (
        pytest.raises(PointError, match=r"has no 'metod' to replace. Did you mean 'method'"),
        patched(Base, "metod", marked(1)),
    ):
        pass
    message = "'get' of <class 'dict'> cannot be replaced: .*Name the function or method of yours"
    with pytest.raises(PointError, match=message), patched(builtins.dict, "get", marked(1)):
        pass


def test_threads_leave_nothing() -> None:
    ready = Barrier(4)

    def enter_and_leave() -> None:
        ready.wait()
        for _ in range(200):
            holder = type("Holder", (Base,), {})
            with patched(holder, "method", marked(1)):
                assert holder().method() == (1, ("base", 1))

    threads = [Thread(target=enter_and_leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
