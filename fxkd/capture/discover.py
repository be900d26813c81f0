"""The discovery run: on real values, without gradients, to see what named functions give and who calls them."""

from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from fxkd.capture.inputs import Inputs
from fxkd.capture.lines import in_fake_kernel, raising_line
from fxkd.capture.structure import storages, tensors
from fxkd.capture.twins import fake_of, fake_twins
from fxkd.errors import CaptureError
from fxkd.patcher import patched
from fxkd.points import Place


class ValuesNeededError(CaptureError):
    """What a named function gives cannot be seen on tensors without values."""


@dataclass(frozen=True, slots=True)
class Given:
    """Stands in a result for the n-th tensor among the arguments, given back as it was."""

    index: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of a named function did.

    Args:
        value: What it returned.
        viewed: Which of its tensor arguments the returned value shares memory with.
        changed: Which of its tensor arguments it wrote to.
    """

    value: Any
    viewed: tuple[int, ...]
    changed: tuple[int, ...]

    def replay(self, given: list[Tensor], mode: FakeTensorMode) -> Any:
        """Give the same result on fake tensors."""
        fresh = pytree.tree_map_only(Tensor, lambda tensor: _fake(mode, tensor), self.value)
        return pytree.tree_map_only(Given, lambda place: given[place.index], fresh)


def _fake(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make a fake of a result, with a gradient where it had one, but without what it was made of."""
    return fake_of(mode, tensor).detach().requires_grad_(tensor.requires_grad)


@dataclass(slots=True)
class Discovery:
    """What the run showed: outcomes per function in call order, modules to open, functions that hold points."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)


def discover(model: nn.Module, inputs: Inputs, places: Iterable[Place], point_modules: Container[int]) -> Discovery:
    """Run ``model`` once; the caller puts its state back.

    Args:
        model: What to run.
        inputs: Arguments for it; their tensors are copied.
        places: The named functions and methods.
        point_modules: Identities of the modules named as points: a function that calls one cannot be one node.
    """
    found = Discovery()
    modules: list[nn.Module] = []
    functions: list[str] = []

    def hit() -> None:
        found.opened.update(map(id, modules))
        found.holders.update(functions)

    def watch_module(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(module) in point_modules:
                hit()
            modules.append(module)
            try:
                return original(module, *args, **kwargs)
            finally:
                modules.pop()

        return call

    def watch_function(place: Place) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        outcomes = found.outcomes.setdefault(place.path, [])

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)  # a program may ask for its signature
            def call(*args: Any, **kwargs: Any) -> Any:
                if in_fake_kernel():
                    return original(*args, **kwargs)
                hit()
                functions.append(place.path)
                try:
                    outcome = _observe(original, args, kwargs)
                finally:
                    functions.pop()
                outcomes.append(outcome)
                return pytree.tree_map_only(Given, lambda g: tensors((args, kwargs))[g.index], outcome.value)

            return call

        return wrap

    copied = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(patched(nn.Module, "__call__", watch_module))
        for place in places:
            stack.enter_context(patched(place.owner, place.name, watch_function(place)))
        model(*copied[0], **copied[1])
    return found


def discover_without_values(
    model: nn.Module, inputs: Inputs, places: Iterable[Place], point_modules: Container[int]
) -> Discovery:
    """Do the same on tensors without values.

    Raises:
        ValuesNeededError: A function or the model does not run so.
    """
    mode, places = FakeTensorMode(allow_non_fake_inputs=True), list(places)
    args, kwargs = pytree.tree_map_only(Tensor, partial(fake_of, mode), (inputs.args, inputs.kwargs))
    try:
        with fake_twins(model, mode), mode:
            return discover(model, Inputs(args, kwargs), places, point_modules)
    except Exception as error:
        names = ", ".join(repr(place.path) for place in places)
        raise ValuesNeededError(
            f"what {names} gives is seen only on values, when prepare runs the model: without them it raises "
            f"{type(error).__name__} at {raising_line(error)}"
        ) from error


def _observe(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Outcome:
    """Call ``function`` and note how its result hangs together with its arguments."""
    given = tensors((args, kwargs))
    places = {id(tensor): Given(index) for index, tensor in enumerate(given)}
    versions = [tensor._version for tensor in given]
    value = function(*args, **kwargs)
    changed = tuple(index for index, tensor in enumerate(given) if tensor._version != versions[index])
    memory = storages(value)
    viewed = tuple(index for index, tensor in enumerate(given) if storages(tensor) & memory)
    return Outcome(pytree.tree_map_only(Tensor, lambda t: places.get(id(t), t), value), viewed, changed)
