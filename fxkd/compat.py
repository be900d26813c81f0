"""Classes written for MMRazor or GML, used as they are: only the line that imports their base and registry changes."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from fxkd import registry
from fxkd.configs.reading import without_scope
from fxkd.errors import SpecError, SpecWarning
from fxkd.registry import Registry

FORWARD = "forward_train"  # what a class is to compute in training
UNWRITTEN = nn.Module.forward  # what a class has that does not say what it computes


class BaseConnector(nn.Module):
    """Base of connectors that are written as ``forward_train(feature)``.

    >>> class Double(BaseConnector):
    ...     def forward_train(self, feature):
    ...         return 2 * feature
    >>> import torch
    >>> Double()(torch.ones(2))
    tensor([2., 2.])
    """

    def __init__(self, init_cfg: None = None) -> None:
        super().__init__()
        if init_cfg is not None:
            raise SpecError([f"{type(self).__name__}: init_cfg is {init_cfg!r}; change the weights after building"])

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``forward`` be what the class computes in training."""
        super().__init_subclass__(**kwargs)
        if "forward_train" in vars(cls) and "forward" not in vars(cls):
            call_forward_train(cls)


class BaseLoss(nn.Module):
    """Base of losses that are written as ``forward_train(s_pred, t_pred)``; ``loss_weight`` is applied to their value.

    >>> class Distance(BaseLoss):
    ...     def forward_train(self, s_pred, t_pred, **kwargs):
    ...         return (s_pred - t_pred).abs().mean()
    >>> import torch
    >>> Distance(loss_weight=3.0)(torch.ones(2), torch.zeros(2))
    tensor(3.)
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``forward`` be what the class computes in training, times its weight."""
        super().__init_subclass__(**kwargs)
        if "forward_train" in vars(cls) and "forward" not in vars(cls):
            call_forward_train(cls, weighted=True)


class BaseDistillationHead(BaseLoss):
    """Base of heads, which own losses and connectors: to fxkd a head is a loss of the two features it is given."""


def call_forward_train(cls: type[nn.Module], weighted: bool = False) -> None:
    """Give ``cls`` a ``forward`` that calls its ``forward_train`` and takes the same arguments."""
    forward_train: Callable[..., Any] = getattr(cls, FORWARD)

    @functools.wraps(forward_train)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        value = self.forward_train(*args, **kwargs)
        return value * self.loss_weight if weighted else value

    cls.forward = forward


class Modules:
    """A registry as MMRazor and GML have it: ``register_module`` is a decorator, with or without a call.

    Args:
        name: What it is called in messages.
        family: Where a class is registered; a function of the class, or nothing for classes that fxkd never runs.

    >>> own = Registry("loss", "fxkd.losses")  # LOSSES has that in which specs look
    >>> losses = Modules("LOSSES", lambda cls: own)
    >>> @losses.register_module()
    ... class HalfDistance(BaseLoss):
    ...     def forward_train(self, s_pred, t_pred):
    ...         return (s_pred - t_pred).abs().mean() / 2
    >>> own.build({"type": "HalfDistance", "loss_weight": 4.0}).loss_weight
    4.0
    """

    def __init__(self, name: str, family: Callable[[type[nn.Module]], Registry | None]) -> None:
        self.name = name
        self._family = family

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
        family = self._family(cls) if isinstance(cls, type) else registry.losses
        if family is None:
            told = f"{self.name}: {cls.__name__} is kept out: fxkd runs distillers and algorithms of its own"
            warnings.warn(f"{told}; register losses and connectors", SpecWarning, stacklevel=3)
            return cls
        written_for_training = getattr(cls, "forward", None) is UNWRITTEN and hasattr(cls, "forward_train")
        if written_for_training:
            call_forward_train(cls)
        try:
            family.register(*names, replace=force)(cls)
        except SpecError as error:
            if "already" not in str(error):
                raise
            raise SpecError([f"{error}: give another name, or force=True to take its place"]) from None
        return cls


def _loss_or_connector(cls: type) -> Registry:
    """Tell a connector (it takes one value) from a loss."""
    if issubclass(cls, BaseConnector):
        return registry.connectors
    if issubclass(cls, BaseLoss) or not hasattr(cls, "forward_train"):
        return registry.losses
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = [one for one in inspect.signature(getattr(cls, FORWARD)).parameters.values() if one.kind not in kinds]
    return registry.connectors if len(named) == 2 else registry.losses  # self and a feature


def _unless_run_by_fxkd(cls: type) -> Registry | None:
    """Leave out algorithms and distillers, which MMRazor registers with its models."""
    steps = ("train_step", "compute_distill_losses", "prepare_from_student", "prepare_from_model")
    return None if any(hasattr(cls, step) for step in steps) else _loss_or_connector(cls)


MODELS = Modules("MODELS", _unless_run_by_fxkd)
LOSSES = Modules("LOSSES", lambda cls: registry.losses)
HEADS = Modules("HEADS", lambda cls: registry.losses)
CONNECTORS = Modules("CONNECTORS", lambda cls: registry.connectors)
DISTILLERS = Modules("DISTILLERS", lambda cls: None)
ALGORITHMS = Modules("ALGORITHMS", lambda cls: None)


def build_loss(config: Mapping[str, Any]) -> nn.Module:
    """Build a loss of its config, as a head does that owns one."""
    return registry.losses.build(_plain(config))


def build_connector(config: Mapping[str, Any] | Sequence[Any]) -> nn.Module:
    """Build a connector of its config, or a chain of a list of them."""
    return registry.connectors.build(_plain(config))


def _plain(config: Any) -> Any:
    if isinstance(config, Mapping) and isinstance(config.get("type"), str):
        return {**config, "type": without_scope(config["type"])}
    return list(map(_plain, config)) if isinstance(config, (list, tuple)) else config
