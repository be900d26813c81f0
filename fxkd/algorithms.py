"""Algorithms by name: ways to train that are more than one backward of a distiller's loss."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fxkd.errors import SpecError, did_you_mean

AlgorithmClass = TypeVar("AlgorithmClass", bound=type)
_CONTRACT = (
    "an algorithm has a classmethod prepare(...), which makes one of models and options, and a method "
    "train_step(batch, optimizers), which trains on one batch and returns the losses by name"
)
_classes: dict[str, type] = {}


def algorithm(name: Any, *, replace: bool = False) -> Callable[[AlgorithmClass], AlgorithmClass]:
    """Return a decorator that puts a class under ``name``, so that ``fxkd.build_algorithm`` finds it by ``type``.

    The class has a classmethod ``prepare(...)``, which makes an object of it, and a method
    ``train_step(batch, optimizers)``, which trains on one batch and returns the losses by name.

    Args:
        name: What configs call it; it belongs to one class. The same class defined again takes its own place.
        replace: Whether the class takes the place of another one of that name.

    Raises:
        SpecError: The name belongs to another class already, or the class lacks one of the two.

    >>> @algorithm("Mean")
    ... class Mean:
    ...     @classmethod
    ...     def prepare(cls, student, rate=0.1):
    ...         return cls()
    ...     def train_step(self, batch, optimizers):
    ...         return {"loss": sum(batch) / len(batch)}
    >>> build_algorithm({"type": "Mean", "rate": 0.5}, student=None).train_step([1, 3], {})
    {'loss': 2.0}
    """
    if not isinstance(name, str) or not name:
        raise SpecError(
            ['@fxkd.algorithm takes the name under which configs find the class: @fxkd.algorithm("MyName")']
        )

    def decorate(cls: AlgorithmClass) -> AlgorithmClass:
        _refuse_incomplete(name, cls)
        known = _classes.get(name, cls)
        if not replace and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise SpecError([f"the algorithm {name!r} is {known.__module__}.{known.__qualname__} already"])
        _classes[name] = cls
        return cls

    return decorate


def build_algorithm(config: Any, **models: Any) -> Any:
    """Make the algorithm that ``config`` names: its ``prepare`` is called with the models and the other options.

    Args:
        config: ``{"type": name, **options}``.
        **models: What a config cannot hold: student, teachers, generator.

    Raises:
        SpecError: There is no such algorithm, or its ``prepare`` does not take what is given.

    >>> from torch import nn
    >>> build_algorithm({"type": "DataFre"}, student=nn.Linear(2, 2))
    Traceback (most recent call last):
    ...
    fxkd.errors.SpecError: no algorithm is called 'DataFre'; ... Did you mean 'DataFree'?
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise SpecError([f"an algorithm is built from {{'type': name, **options}}, not from {config!r}"])
    name = config["type"]
    if name not in _classes:
        there = ", ".join(map(repr, sorted(_classes))) or "none"
        raise SpecError([f"no algorithm is called {name!r}; there is {there}." + did_you_mean(name, _classes)])
    options = {key: value for key, value in config.items() if key != "type"}
    twice = [key for key in options if key in models]
    if twice:
        raise SpecError([f"{name}: {', '.join(map(repr, twice))} is given twice, in the config and beside it"])
    prepare: Any = _classes[name].prepare  # type: ignore[attr-defined]
    try:
        inspect.signature(prepare).bind(**models, **options)
    except TypeError as error:
        raise SpecError([f"{name}: {error}; prepare takes {inspect.signature(prepare)}"]) from None
    return prepare(**models, **options)


def _refuse_incomplete(name: str, cls: object) -> None:
    known = f"@fxkd.algorithm({name!r})"
    if not isinstance(cls, type):
        raise SpecError([f"{known} decorates a class, not {cls!r}"])
    lacking = [method for method in ("prepare", "train_step") if not callable(getattr(cls, method, None))]
    if lacking:
        raise SpecError([f"{known}: {cls.__name__} lacks {' and '.join(map(repr, lacking))}; {_CONTRACT}"])
    if inspect.isfunction(inspect.getattr_static(cls, "prepare")):
        raise SpecError([f"{known}: 'prepare' of {cls.__name__} is no classmethod; {_CONTRACT}"])
    try:
        inspect.signature(cls.train_step).bind(None, "batch", "optimizers")  # type: ignore[attr-defined]
    except TypeError:
        takes = inspect.signature(cls.train_step)  # type: ignore[attr-defined]
        raise SpecError([f"{known}: 'train_step' of {cls.__name__} takes {takes}; {_CONTRACT}"]) from None
