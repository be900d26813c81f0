"""Registries as MMRazor and GML have them, in front of fxkd's own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from fxkd import registry
from fxkd.algorithms import algorithm
from fxkd.compat.bases import FORWARD, BaseConnector, BaseLoss, call_forward_train
from fxkd.configs.reading import without_scope
from fxkd.errors import SpecError
from fxkd.registry import Registry

UNWRITTEN = nn.Module.forward  # what a class has that does not say what it computes


distillers = Registry("distiller", "fxkd.compat")
Put = Callable[..., Any]  # put(cls, names, replace): where a class goes


class Modules:
    """A registry as MMRazor and GML have it: ``register_module`` is a decorator, with or without a call.

    Args:
        put: Called with a class, its names and whether it takes the place of another; puts it where fxkd looks.

    >>> own = Registry("loss", "fxkd.losses")  # LOSSES has that in which specs look
    >>> losses = Modules(lambda cls, names, replace: own.register(*names, replace=replace)(cls))
    >>> @losses.register_module()
    ... class HalfDistance(BaseLoss):
    ...     def forward_train(self, s_pred, t_pred):
    ...         return (s_pred - t_pred).abs().mean() / 2
    >>> own.build({"type": "HalfDistance", "loss_weight": 4.0}).loss_weight
    4.0
    """

    def __init__(self, put: Put) -> None:
        self._put = put

    def register_module(self, name: Any = None, force: bool = False, module: type[nn.Module] | None = None) -> Any:
        """Register a class under its own name, another, or several.

        Args:
            name: The name or names; the class's own by default.
            force: Whether it takes the place of another class of that name.
            module: The class, where this is no decorator.

        Raises:
            SpecError: The name is taken, or what is registered is no module.
        """
        if isinstance(name, type):  # a decorator without a call
            name, module = None, name
        if module is not None:
            return self._register(module, name, force)
        return lambda cls: self._register(cls, name, force)

    def _register(self, cls: Any, name: Any, force: bool) -> Any:
        names = [name] if isinstance(name, str) else list(name or [getattr(cls, "__name__", repr(cls))])
        try:
            self._put(cls, names, force)
        except SpecError as error:
            if "already" not in str(error):
                raise
            raise SpecError([f"{error}: give another name, or force=True to take its place"]) from None
        return cls


def _in(family: Registry) -> Put:
    """Make what puts a class into ``family``, with a ``forward`` if it only says what it computes in training."""

    def put(cls: Any, names: Sequence[str], replace: bool) -> None:
        if getattr(cls, "forward", None) is UNWRITTEN and hasattr(cls, FORWARD):
            call_forward_train(cls)
        family.register(*names, replace=replace)(cls)

    return put


def _among_algorithms(cls: Any, names: Sequence[str], replace: bool) -> None:
    """Put a class with a ``train_step`` where ``fxkd.build_algorithm`` looks; it is made by calling it."""
    if isinstance(cls, type) and not hasattr(cls, "prepare"):
        cls.prepare = classmethod(lambda cls, **given: cls(**given))  # type: ignore[attr-defined]
    for name in names:
        algorithm(name, replace=replace)(cls)


def _where_it_belongs(cls: Any, names: Sequence[str], replace: bool) -> None:
    """Tell by what a class has which of all it is: MMRazor has one registry for them."""
    if hasattr(cls, "train_step"):
        put: Put = _among_algorithms
    elif hasattr(cls, "compute_distill_losses") or hasattr(cls, "prepare_from_model"):
        put = _in(distillers)
    else:
        put = _in(registry.connectors if _is_connector(cls) else registry.losses)
    put(cls, names, replace)


def _is_connector(cls: Any) -> bool:
    """Tell a connector (it takes one value) from a loss."""
    if not isinstance(cls, type) or issubclass(cls, BaseLoss) or not hasattr(cls, FORWARD):
        return isinstance(cls, type) and issubclass(cls, BaseConnector)
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [one for one in inspect.signature(getattr(cls, FORWARD)).parameters.values() if one.kind not in kinds]
    return issubclass(cls, BaseConnector) or len(named) == 2  # self and a feature


MODELS = Modules(_where_it_belongs)
LOSSES = Modules(_in(registry.losses))
HEADS = Modules(_in(registry.losses))
CONNECTORS = Modules(_in(registry.connectors))
DISTILLERS = Modules(_in(distillers))
ALGORITHMS = Modules(_among_algorithms)


def build_loss(config: Mapping[str, Any]) -> nn.Module:
    """Build a loss of its config, as a head does that owns one."""
    return registry.losses.build(_plain(config))


def build_connector(config: Mapping[str, Any] | Sequence[Any]) -> nn.Module:
    """Build a connector of its config, or a chain of a list of them."""
    return registry.connectors.build(_plain(config))


def build_distiller(config: Mapping[str, Any] | nn.Module) -> nn.Module:
    """Build a distiller of its config, as an algorithm does that owns one; a ready one stays as it is."""
    return distillers.build(_plain(config))


def _plain(config: Any) -> Any:
    if isinstance(config, Mapping) and isinstance(config.get("type"), str):
        return {**config, "type": without_scope(config["type"])}
    return list(map(_plain, config)) if isinstance(config, (list, tuple)) else config
