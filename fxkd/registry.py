"""Names to classes, by decorator: what a spec calls ``type`` is looked up here."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from fxkd.errors import SpecError, did_you_mean

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])


class Registry:
    """One family of modules by name; the files of its package are imported at the first look-up.

    Args:
        kind: What one member is called in messages: ``"loss"`` or ``"connector"``.
        package: Dotted name of the package whose files register themselves when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[nn.Module]] = {}
        self._discovered = False

    def register(self, *names: str) -> Callable[[ModuleClass], ModuleClass]:
        """Return a decorator that puts a class under each of ``names``, so that specs find it by ``type``.

        Args:
            *names: What the class is called in specs; a name belongs to one class. The same class defined again (a
                cell of a notebook run twice) takes its own place.

        Raises:
            SpecError: A name belongs to another class already.

        >>> losses = Registry("loss", "fxkd.losses")  # yours is fxkd.loss, or fxkd.connector
        >>> @losses.register("SquaredDistance")
        ... class SquaredDistance(nn.Module):
        ...     def forward(self, preds_S, preds_T):
        ...         return (preds_S - preds_T).square().mean()
        >>> losses.build({"type": "SquaredDistance"})
        SquaredDistance()
        """

        def decorate(cls: ModuleClass) -> ModuleClass:
            for name in names:
                known = self._classes.setdefault(name, cls)
                if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                    raise SpecError([f"the {self.kind} {name!r} is {known.__module__}.{known.__qualname__} already"])
                self._classes[name] = cls
            return cls

        return decorate

    def names(self) -> list[str]:
        """List every registered name, in alphabetical order."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str) -> type[nn.Module]:
        """Return the class called ``name``; the error of an unknown one offers the nearest names."""
        self._discover()
        if name not in self._classes:
            raise SpecError([f"no {self.kind} is called {name!r}." + did_you_mean(name, self._classes)])
        return self._classes[name]

    def build(self, config: Mapping[str, Any] | Sequence[Any] | nn.Module) -> nn.Module:
        """Build what ``config`` says: ``{"type": name, **arguments}``, a list of them (a chain), or a ready module."""
        if isinstance(config, nn.Module):
            return config
        if isinstance(config, Sequence) and not isinstance(config, str):
            return nn.Sequential(*map(self.build, config))
        cls, arguments = self.check(config)
        return cls(**arguments)

    def check(self, config: object) -> tuple[type[nn.Module], dict[str, Any]]:
        """Give the class that ``config`` names and the arguments for it, without building it."""
        name, arguments = self._split(config)
        cls = self.get(name)
        try:
            inspect.signature(cls).bind(**arguments)
        except TypeError as error:
            raise SpecError([f"{cls.__name__}: {error}; it takes {inspect.signature(cls)}"]) from None
        return cls, arguments

    def _split(self, config: object) -> tuple[str, dict[str, Any]]:
        if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
            raise SpecError([f"a {self.kind} is built from {{'type': name, **arguments}}, not from {config!r}"])
        arguments = dict(config)
        return arguments.pop("type"), arguments

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True


losses = Registry("loss", "fxkd.losses")
connectors = Registry("connector", "fxkd.connectors")
loss = losses.register
connector = connectors.register
