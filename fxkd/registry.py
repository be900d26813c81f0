"""Names to classes, by decorator: what a spec calls ``type`` is looked up here."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from fxkd.errors import SpecError, did_you_mean
from fxkd.weighted import Weighted

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])
TORCH = "torch.nn."


class Registry:
    """One family of modules by name; the files of its package are imported at the first look-up.

    Another package adds members by entry points in the group ``fxkd.losses`` or ``fxkd.connectors``. In its
    ``pyproject.toml``: ``[project.entry-points."fxkd.losses"]`` with a line ``MyLoss = "my_package.losses:MyLoss"``.

    Args:
        kind: What one member is called in messages: ``"loss"`` or ``"connector"``.
        package: Dotted name of the package whose files register themselves when imported, and of the group.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[nn.Module]] = {}
        self._discovered = False

    def register(self, *names: str, replace: bool = False) -> Callable[[ModuleClass], ModuleClass]:
        """Return a decorator that puts a class under each of ``names``, so that specs find it by ``type``.

        Args:
            *names: What the class is called in specs; a name belongs to one class. The same class defined again (a
                cell of a notebook run twice) takes its own place.
            replace: Whether the class takes the place of another one of that name.

        Raises:
            SpecError: A name belongs to another class already; no name was given; what is decorated is no module.

        >>> losses = Registry("loss", "fxkd.losses")  # yours is fxkd.loss, or fxkd.connector
        >>> @losses.register("SquaredDistance")
        ... class SquaredDistance(nn.Module):
        ...     def forward(self, preds_S, preds_T):
        ...         return (preds_S - preds_T).square().mean()
        >>> losses.build({"type": "SquaredDistance"})
        SquaredDistance()
        """
        known = f"@fxkd.{self.kind}"
        if not names or not all(isinstance(name, str) for name in names):
            raise SpecError([f'{known} takes the name under which specs find the class: {known}("MyName")'])

        def decorate(cls: ModuleClass) -> ModuleClass:
            if not _is_module_class(cls):
                raise SpecError([f"{known}({names[0]!r}) decorates a class derived from nn.Module, not {cls!r}"])
            if not cls.__module__.startswith(f"{self.package}."):
                self._discover()  # so that a name of fxkd's own is refused here, not when it is next looked up
            for name in names:
                if not replace:
                    self._refuse_other(name, cls)
                self._classes[name] = cls
            return cls

        return decorate

    def names(self) -> list[str]:
        """List every name, in alphabetical order: fxkd's own, registered ones, and those of other packages."""
        self._discover()
        return sorted({*self._classes, *(entry.name for entry in entry_points(group=self.package))})

    def get(self, name: Any) -> type[nn.Module]:
        """Return the class called ``name``; entry points of other packages are loaded when they are asked for.

        ``torch.nn.<Name>`` is the module of that name.

        Raises:
            SpecError: There is none (offers the nearest names), or the package that announces it cannot give it.
        """
        if not isinstance(name, str):
            raise SpecError([f"the type of a {self.kind} is a name, not {name!r}"])
        if name.startswith(TORCH):
            return torch_module(name.removeprefix(TORCH))
        self._discover()
        if name not in self._classes:
            self._classes[name] = self._load(name)
        return self._classes[name]

    def build(self, config: Mapping[str, Any] | Sequence[Any] | nn.Module) -> nn.Module:
        """Build what ``config`` says: ``{"type": name, **arguments}``, a list of them (a chain), or a ready module.

        Raises:
            SpecError: There is no such class, or it does not take the arguments.
        """
        if isinstance(config, nn.Module):
            return config
        if isinstance(config, Sequence) and not isinstance(config, str):
            return nn.Sequential(*map(self.build, config))
        cls, arguments = self.check(config)
        weight = self._weight_outside(config, arguments)
        try:
            built = cls(**arguments)
            return built if weight == 1 else Weighted(built, weight)
        except SpecError:
            raise
        except Exception as error:
            raise SpecError([f"{cls.__name__}: {type(error).__name__} as it was built: {error}"]) from error

    def check(self, config: object) -> tuple[type[nn.Module], dict[str, Any]]:
        """Give the class that ``config`` names and the arguments for it, without building it.

        A ``loss_weight`` that the class does not take is none of its arguments: ``build`` applies it.
        """
        name, arguments = self._split(config)
        cls = self.get(name)
        if self.kind == "loss" and not _takes(cls, "loss_weight"):
            arguments.pop("loss_weight", None)
        try:
            inspect.signature(cls).bind(**arguments)
        except TypeError as error:
            raise SpecError([f"{cls.__name__}: {error}; it takes {inspect.signature(cls)}"]) from None
        return cls, arguments

    @staticmethod
    def _weight_outside(config: object, arguments: Mapping[str, Any]) -> float:
        """Give the ``loss_weight`` that a class does not take."""
        given: Any = config.get("loss_weight", 1) if isinstance(config, Mapping) else 1
        return 1 if "loss_weight" in arguments else given

    def _split(self, config: object) -> tuple[str, dict[str, Any]]:
        if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
            raise SpecError([f"a {self.kind} is built from {{'type': name, **arguments}}, not from {config!r}"])
        arguments = {key: _plain(value) for key, value in config.items()}
        return arguments.pop("type"), arguments

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True

    def _refuse_other(self, name: str, cls: type[nn.Module]) -> None:
        known = self._classes.get(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise SpecError([f"the {self.kind} {name!r} is {known.__module__}.{known.__qualname__} already"])

    def _load(self, name: str) -> type[nn.Module]:
        """Load the class that another package announces under ``name``."""
        found = {entry.value: entry for entry in entry_points(group=self.package) if entry.name == name}
        if not found:
            raise SpecError([f"no {self.kind} is called {name!r}." + did_you_mean(name, self.names())])
        sources = [f"{entry.dist.name if entry.dist else 'a package'!r} ({entry.value})" for entry in found.values()]
        if len(found) > 1:
            raise SpecError([f"the {self.kind} {name!r} is announced by {' and by '.join(sources)}: uninstall one"])
        announced = f"the {self.kind} {name!r} of the package {sources[0]}"
        try:
            cls = next(iter(found.values())).load()
        except Exception as error:
            raise SpecError([f"{announced} cannot be loaded: {type(error).__name__}: {error}"]) from error
        if not _is_module_class(cls):
            raise SpecError([f"{announced} is no class derived from nn.Module: {cls!r}"])
        return cls  # type: ignore[no-any-return]


def _takes(cls: type[nn.Module], name: str) -> bool:
    if cls.__init__ is nn.Module.__init__:  # says that it takes anything, and takes nothing
        return False
    parameters = inspect.signature(cls).parameters.values()
    return any(one.name == name or one.kind is one.VAR_KEYWORD for one in parameters)


def torch_module(name: str) -> type[nn.Module]:
    """Return the class that ``torch.nn`` has under ``name``.

    Raises:
        SpecError: There is none; offers the nearest names.

    >>> torch_module("Conv2d")
    <class 'torch.nn.modules.conv.Conv2d'>
    """
    known: dict[str, type[nn.Module]] = {
        key: value for key, value in vars(nn).items() if _is_module_class(value) and value is not nn.Module
    }
    if name not in known:
        raise SpecError([f"torch.nn has no module {name!r}." + did_you_mean(name, known)])
    return known[name]


def _is_module_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _plain(value: Any) -> Any:
    """Copy dicts and lists, so that a class may change its options."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return list(map(_plain, value)) if type(value) is list else value


losses = Registry("loss", "fxkd.losses")
connectors = Registry("connector", "fxkd.connectors")
generators = Registry("generator", "fxkd.generators")
loss = losses.register
head = losses.register  # a loss of two values that owns connectors
connector = connectors.register
generator = generators.register
