"""A path string -> where it is: a module or parameter of a model, a function or method of the program."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from types import ClassMethodDescriptorType, ModuleType
from typing import Any

from torch import nn

from fxkd.errors import PointError, did_you_mean, offer
from fxkd.nearest import as_ranges, nearest_paths

FUNCTION_FORM = "module.function"
METHOD_FORM = "module.Class.method"
MISSING = object()  # stands for an attribute that is not there, as None may be one


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function or method is looked up at call time: ``owner`` (module, class, namespace) holds ``name``."""

    owner: object
    name: str
    path: str


def find_module(model: nn.Module | None, path: str) -> nn.Module:
    """Find the module at an exact dotted path, aliases of shared modules included; ``''`` is the model itself.

    Raises:
        PointError: There is none; says what the longest valid part of the path has.

    >>> find_module(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), "1")
    ReLU()
    """
    model, names = _model(model), _names(path)
    module, depth = _walk(model, names)
    if depth == len(names):
        return module
    has = _offer([name for name, child in module._modules.items() if child is not None], "no modules")
    what = f"no module {path!r} in {type(model).__name__}: {_prefix(names[:depth], module)} has {has}."
    raise PointError(what + _module_hint(model, path))


def find_parameter(model: nn.Module | None, path: str) -> nn.Parameter:
    """Find the parameter at an exact dotted path, aliases of tied parameters included.

    Raises:
        PointError: There is none; says what the longest valid part of the path has.

    >>> find_parameter(nn.Sequential(nn.Linear(2, 1)), "0.weight").shape
    torch.Size([1, 2])
    """
    model, (*names, last) = _model(model), _names(path) or [""]
    module, depth = _walk(model, names)
    found = dict(module._parameters.items()).get(last) if depth == len(names) else None
    if found is not None:
        return found
    here = [name for name, parameter in module._parameters.items() if parameter is not None]
    has = _offer(here + [f"{name}." for name, _ in module._modules.items()], "no parameters")
    what = f"no parameter {path!r} in {type(model).__name__}: {_prefix(names[:depth], module)} has {has}."
    raise PointError(what + _parameter_hint(model, path))


def find_function(path: str) -> Place:
    """Find where a function is looked up: the module that *uses* it, not the one that defines it.

    ``package.module.function``; chains such as ``package.module.F.softmax`` and any callable are accepted.

    Raises:
        PointError: The path has no dot, cannot be imported, or names nothing that can be called.

    >>> find_function("torch.nn.functional.softmax").name
    'softmax'
    """
    owner, name = _owner(split(path, FUNCTION_FORM), path)
    found = _attribute(owner, name, path)
    if found is MISSING:
        raise PointError(_no_attribute(path, owner, name))
    if not callable(found):
        raise PointError(f"{path!r} is {_kind(found)}, not a function.")
    return Place(owner, name, path)


def find_method(path: str) -> Place:
    """Find a method of a class: ``package.module.Class.method``; nested classes and inherited methods are accepted.

    Raises:
        PointError: The path has fewer than two dots, cannot be imported, or names no method of a class.

    >>> find_method("fractions.Fraction.limit_denominator").owner
    <class 'fractions.Fraction'>
    """
    owner, name = _owner(split(path, METHOD_FORM), path)
    if not isinstance(owner, type):
        hint = f"a method path is {METHOD_FORM!r}; for a function of a module use FunctionOutputs or FunctionInputs."
        raise PointError(f"{path!r}: {path.rpartition('.')[0]!r} is {_kind(owner)}, not a class; {hint}")
    raw = class_attribute(owner, name)
    if raw is MISSING:
        raise PointError(_no_attribute(path, owner, name))
    if not callable(getattr(owner, name)):
        raise PointError(f"{path!r} is {_kind(raw)}, not a method; name a method that is called.")
    return Place(owner, name, path)


def original(place: Place) -> Callable[..., Any]:
    """Give the plain callable behind a place, called as a wrapper put there would be.

    That is ``fn(self, ...)`` for an instance method, ``fn(...)`` for a static and ``fn(cls, ...)`` for a class method.

    >>> original(find_method("fractions.Fraction.from_float")).__name__
    'from_float'
    """
    raw = class_attribute(place.owner, place.name) if isinstance(place.owner, type) else MISSING
    if isinstance(raw, (staticmethod, classmethod)):
        return raw.__func__
    if raw is MISSING:
        return getattr(place.owner, place.name)  # type: ignore[no-any-return]
    if callable(raw):
        return raw
    return lambda self, *args, **kwargs: raw.__get__(self, type(self))(*args, **kwargs)  # type: ignore[attr-defined]


def held_at(place: Place) -> object:
    """Give what stands at a place now, descriptors unbound: to tell whether somebody put another thing there."""
    if isinstance(place.owner, type):
        return class_attribute(place.owner, place.name)
    return getattr(place.owner, place.name, MISSING)


def class_attribute(owner: type, name: str) -> object:
    """Give what a class or its bases hold under ``name``, as it is (descriptors unbound), or ``MISSING``."""
    return next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), MISSING)


def described_like(raw: object, function: Callable[..., Any]) -> object:
    """Give what a class must hold so that ``function`` is bound as ``raw`` is: static, class or instance method."""
    if isinstance(raw, (classmethod, ClassMethodDescriptorType)):
        return classmethod(function)
    if isinstance(raw, staticmethod) or not hasattr(type(raw), "__get__"):
        return staticmethod(function)
    return function


def split(path: str, form: str) -> list[str]:
    """Split a dotted path into its names; it must have at least the dots of ``form``."""
    if not isinstance(path, str):
        raise PointError(f"a path is a string such as {form!r}, not {path!r}.")
    names = path.split(".")
    if len(names) > form.count(".") and all(name.isidentifier() for name in names):
        return names
    dots = "one dot" if form.count(".") == 1 else "two dots"
    raise PointError(f"{path!r} is not a path of the form {form!r}: it needs at least {dots} between names.")


def _model(model: nn.Module | None) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    raise PointError(f"a path needs the model that it is in: an nn.Module, not {_kind(model)}.")


def _names(path: str) -> list[str]:
    if not isinstance(path, str):
        raise PointError(f"a path in a model is a string such as 'layer1.0.conv1', not {path!r}.")
    return path.split(".") if path else []


def _walk(model: nn.Module, names: list[str]) -> tuple[nn.Module, int]:
    """Follow ``names`` as far as they go: the module reached and how many names that took."""
    for depth, name in enumerate(names):
        child = dict(model._modules.items()).get(name)  # a scripted module has its own kind of dict
        if child is None:
            return model, depth
        model = child
    return model, len(names)


def _prefix(names: list[str], module: nn.Module) -> str:
    return f"{'.'.join(names)!r} ({type(module).__name__})" if names else "it"


def _offer(names: Iterable[str], nothing: str, most: int = 12) -> str:
    """List names in single quotes, the first few of many."""
    quoted = as_ranges(list(names))
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return ", ".join(quoted[:most]) + more or nothing


def _module_hint(model: nn.Module, path: str) -> str:
    if path in dict(model.named_parameters(remove_duplicate=False)):
        return f" {path!r} is a parameter: record it with type 'Parameter'."
    if path in dict(model.named_buffers(remove_duplicate=False)):
        return f" {path!r} is a buffer, not a module: record the module that gives a value made of it."
    if ":" in path:
        return " An operation, such as 'layer1.0:add', is a point of type 'ModuleOutputs' alone."
    return offer(nearest_paths(path, [name for name, _ in model.named_modules(remove_duplicate=False)]))


def _parameter_hint(model: nn.Module, path: str) -> str:
    if path in dict(model.named_buffers(remove_duplicate=False)):
        return f" {path!r} is a buffer, not a parameter."
    if path in dict(model.named_modules(remove_duplicate=False)):
        return f" {path!r} is a module: record it with type 'ModuleOutputs'."
    return offer(nearest_paths(path, [name for name, _ in model.named_parameters(remove_duplicate=False)]))


def _owner(names: list[str], path: str) -> tuple[object, str]:
    """Follow all names of a program path but the last, importing modules on the way."""
    owner: object = _import(names[0], path)
    if owner is MISSING:
        raise PointError(f"{path!r}: {names[0]!r} cannot be imported: there is no module of that name.")
    for name, following in pairwise(names[1:]):
        owner = _step(owner, name, following, path)
    return owner, names[-1]


def _step(owner: object, name: str, following: str, path: str) -> object:
    """Go from ``owner`` to what it calls ``name``; a function does not hide a module that it shares its name with."""
    found = _attribute(owner, name, path)
    if isinstance(found, ModuleType) or (found is not MISSING and hasattr(found, following)):
        return found
    module = _import(f"{owner.__name__}.{name}", path) if isinstance(owner, ModuleType) else MISSING
    if module is not MISSING:
        return module
    if found is MISSING:
        raise PointError(_no_attribute(path, owner, name))
    return found


def _import(name: str, path: str) -> object:
    """Import a module; ``MISSING`` where there is none of that name."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module may raise anything while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return MISSING
        raise PointError(f"{path!r}: {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _attribute(owner: object, name: str, path: str) -> object:
    """Give ``owner.name`` or ``MISSING``; a lazy module may import something here."""
    try:
        return getattr(owner, name, MISSING)
    except Exception as error:
        raise PointError(f"{path!r}: {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _no_attribute(path: str, owner: object, name: str) -> str:
    known = dir(owner)
    has = _offer([one for one in known if not one.startswith("_")], "no public names")
    title = owner.__name__ if isinstance(owner, (ModuleType, type)) else path.rpartition(".")[0]
    return f"{path!r}: {title!r} has no {name!r}, it has {has}." + did_you_mean(name, known)


def _kind(value: object) -> str:
    """Say what something is: a module, a class, a property, or of which type."""
    if isinstance(value, ModuleType):
        return "a module"
    if isinstance(value, type):
        return "a class"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
