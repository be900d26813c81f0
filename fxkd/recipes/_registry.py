"""Recipes by name, fxkd's own and those of users."""

from collections.abc import Callable
from typing import Any, TypeVar

from fxkd.errors import SpecError, did_you_mean

Recipe = TypeVar("Recipe", bound=Callable[..., Any])

_recipes: dict[str, Callable[..., Any]] = {}


def recipe(name: Any) -> Callable[[Recipe], Recipe]:
    """Return a decorator that puts a function under ``name``, for ``fxkd.recipes.get``.

    Args:
        name: What the recipe is called. The same function defined again (a cell of a notebook run twice) takes its own
            place.

    Raises:
        SpecError: The name belongs to another function already, or is no text; what is decorated cannot be called.

    >>> import fxkd
    >>> @fxkd.recipe("last_layers")
    ... def last_layers(student, teacher, example_inputs, *, point="0"):
    ...     return fxkd.Spec.load({"pairs": [{"student": point, "teacher": point, "loss": {"type": "L1Loss"}}]})
    >>> fxkd.recipes.get("last_layers") is last_layers
    True
    """
    if not isinstance(name, str) or not name:
        raise SpecError(['@fxkd.recipe takes the name of the recipe: @fxkd.recipe("my_recipe")'])

    def decorate(function: Recipe) -> Recipe:
        if not callable(function):
            raise SpecError([f"@fxkd.recipe({name!r}) decorates a function that returns a spec, not {function!r}"])
        known = _recipes.get(name, function)
        if _full_name(known) != _full_name(function):
            raise SpecError([f"the recipe {name!r} is {_full_name(known)} already; take another name"])
        _recipes[name] = function
        return function

    return decorate


def names() -> list[str]:
    """List the recipes in alphabetical order.

    >>> "fitnet" in names()
    True
    """
    return sorted(_recipes)


def get(name: str) -> Callable[..., Any]:
    """Return the recipe called ``name``.

    Raises:
        SpecError: There is none; offers the nearest names.

    >>> get("fitnet").__name__
    'fitnet'
    """
    if name not in _recipes:
        raise SpecError([f"no recipe is called {name!r}; there is {', '.join(names())}." + did_you_mean(name, names())])
    return _recipes[name]


def _full_name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
