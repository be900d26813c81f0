"""The discovery run: on real values, to see what named functions give, who calls them, and what some leaves give."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from fxkd.capture.boxes import Boxes, Watched
from fxkd.capture.contents import Contents, content_of, holders, same_content, view_of
from fxkd.capture.heard import Ear, Names, noted_reads, noted_sets
from fxkd.capture.inputs import Inputs
from fxkd.capture.lines import in_fake_kernel, raising_line
from fxkd.capture.structure import mapped, storages, tensors
from fxkd.capture.twins import fake_like, fake_of, fake_twins
from fxkd.capture.whole import note_module, whole_of
from fxkd.capture.whole_calls import note
from fxkd.errors import CaptureError
from fxkd.patcher import patched
from fxkd.points import Place
from fxkd.points import original as original_of
from fxkd.records import bound_arguments


class ValuesNeededError(CaptureError):
    """What a named function gives cannot be seen on tensors without values."""


PLAIN = (Tensor, nn.Module, int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.layout)


@dataclass(frozen=True, slots=True)
class Given:
    """Stands in a result for the n-th tensor among the arguments, given back as it was."""

    index: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of a named function, or of a module that does not run without values, did.

    Args:
        value: What it returned.
        viewed: Which of its tensor arguments the returned value shares memory with.
        changed: Which of its tensor arguments it wrote to.
        boxes: What it did to the containers that it was given.
        reads: What it read of modules.
        sets: What it set in modules.
        objects: The objects of the model's in which it set something, but for that whose method it is.
    """

    value: Any
    viewed: tuple[int, ...]
    changed: tuple[int, ...]
    boxes: Boxes
    reads: Names
    sets: Names
    objects: tuple[Any, ...]

    def written(self, given: Any) -> list[Tensor]:
        """Give the tensors that it wrote to, of those it was given."""
        return [tensor for index, tensor in enumerate(tensors(given)) if index in self.changed]

    def replay(self, given: list[Tensor], mode: FakeTensorMode, alone: frozenset[int]) -> Any:
        """Give the same result on fake tensors; ``alone`` is memory in which no two tensors live."""
        fresh = mapped(Tensor, lambda tensor: _fake(mode, tensor, alone), self.value)
        return mapped(Given, lambda place: given[place.index], fresh)


def _fake(mode: FakeTensorMode, tensor: Tensor, alone: frozenset[int]) -> Tensor:
    """Make a fake of a result, with a gradient where it had one, but without what it was made of."""
    fake = fake_like(mode, tensor) if storages(tensor) <= alone else fake_of(mode, tensor).detach()
    if not tensor.requires_grad:
        return fake
    with torch.enable_grad():
        return fake.requires_grad_().clone()  # no leaf: the program may write to it


@dataclass(slots=True)
class Discovery:
    """What the run showed: outcomes per function in call order, modules to open, functions that hold points.

    Args:
        outcomes: What each named function did, by path.
        opened: The modules in whose forward a point is called.
        holders: The functions in which a point is called.
        leaves: What each watched module did, by identity; None for a call that raised.
        raised: What named functions raised, and the model caught, by path.
    """

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    leaves: dict[int, list[Outcome | None]] = field(default_factory=dict)
    raised: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watch:
    """Leaves of which must be seen on values what they give.

    Args:
        leaves: Paths of the modules, by their identities.
        opened: Those whose forward is recorded: a call below another leaf is none of the recording.
        grad: Whether the recording is with gradients.
        on_values: Whether the run is on values, so that what functions gave is kept for a compiled graph.
        hanging: The objects that hang on the model.
    """

    leaves: Mapping[int, str] = field(default_factory=dict)
    opened: frozenset[int] = frozenset()
    grad: bool = False
    on_values: bool = True
    hanging: Sequence[Any] = ()


def discover(
    model: nn.Module,
    inputs: Inputs,
    places: Iterable[Place],
    point_modules: Container[int],
    watch: Watch = Watch(),
) -> Discovery:
    """Run ``model`` once; the caller puts its state back.

    Args:
        model: What to run.
        inputs: Arguments for it; their tensors are copied.
        places: The named functions and methods.
        point_modules: Identities of the modules named as points: a function that calls one cannot be one node.
        watch: Modules of which is noted what they give, and how to run.
    """
    found = Discovery(leaves={leaf: [] for leaf in watch.leaves})
    modules: list[nn.Module] = []
    functions: list[str] = []
    ear = Ear()

    def hit() -> None:
        found.opened.update(map(id, modules))
        found.holders.update(functions)

    def watch_module(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(module) in point_modules:
                hit()
            outcomes = found.leaves.get(id(module))
            is_watched = outcomes is not None and all(id(outer) in watch.opened for outer in modules)
            modules.append(module)
            try:
                if outcomes is None or not is_watched:
                    return original(module, *args, **kwargs)
                outcome, value = _noted(original, module, args, kwargs, outcomes)
                note_module(module, watch.leaves[id(module)], (args, kwargs), value, outcome.written((args, kwargs)))
                return value
            finally:
                modules.pop()

        return call

    def watch_function(place: Place) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        outcomes, whole = found.outcomes.setdefault(place.path, []), whole_of(original_of(place), place.path)
        own = bound_arguments(place)

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)  # a program may ask for its signature
            def call(*args: Any, **kwargs: Any) -> Any:
                if in_fake_kernel():
                    return original(*args, **kwargs)
                hit()
                functions.append(place.path)
                try:
                    outcome, value = observe(original, args, kwargs, ear, _others(watch, args[:own]))
                except Exception as error:
                    found.raised[place.path] = f"{type(error).__name__} at {raising_line(error)}"
                    raise
                finally:
                    functions.pop()
                outcomes.append(outcome)
                if watch.on_values:
                    note(whole, args, kwargs, value, outcome.written((args, kwargs)))
                return value

            return call

        return wrap

    places = list(places)
    copied = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    with ExitStack() as stack, torch.set_grad_enabled(watch.grad):
        stack.enter_context(patched(nn.Module, "__call__", watch_module))
        if places:
            stack.enter_context(noted_reads(ear))
            stack.enter_context(noted_sets(ear))
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
        with fake_twins(model, partial(fake_of, mode)), mode:
            return discover(model, Inputs(args, kwargs), places, point_modules, Watch(on_values=False))
    except Exception as error:
        names = ", ".join(repr(place.path) for place in places)
        raise ValuesNeededError(
            f"what {names} gives is seen only on values, when prepare runs the model: without them it raises "
            f"{type(error).__name__} at {raising_line(error)}"
        ) from error


def observe(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    ear: Ear,
    objects: Sequence[Any] = (),
) -> tuple[Outcome, Any]:
    """Call ``function``; note how its result hangs together with its arguments, and give the very result too."""
    given, watched = tensors((args, kwargs)), Watched(args, kwargs)
    places = {id(tensor): Given(index) for index, tensor in enumerate(given)}
    versions, before = [tensor._version for tensor in given], [(holder, content_of(holder)) for holder in objects]
    with ear.one_call() as (reads, sets):
        value = function(*args, **kwargs)
    changed = tuple(index for index, tensor in enumerate(given) if tensor._version != versions[index])
    memory = storages(value)
    viewed = tuple(index for index, tensor in enumerate(given) if storages(tensor) & memory)
    kept = mapped(Tensor, lambda tensor: places.get(id(tensor), tensor), value)
    others = tuple(holder for holder, content in before if not same_content(view_of(holder), content))
    return Outcome(kept, viewed, changed, watched.done(value), reads, sets, others), value


def _others(watch: Watch, selves: tuple[Any, ...]) -> list[Any]:
    """List the objects that hang on the model, but for those of the object whose method is called."""
    own = set(map(id, holders([one for one in selves if not isinstance(one, nn.Module)])))
    return [holder for holder in watch.hanging if id(holder) not in own]


def _noted(
    call: Callable[..., Any],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outcomes: list[Outcome | None],
) -> tuple[Outcome, Any]:
    """Call a watched module; its place among the outcomes is that of the call, also if it raises.

    Raises:
        CaptureError: It leaves something behind beside what it gives: a recording would not see it.
    """
    place, contents = len(outcomes), Contents(module)
    others = {type(leaf).__name__ for leaf in pytree.tree_leaves((args, kwargs)) if not isinstance(leaf, PLAIN)}
    outcomes.append(None)
    outcomes[place], _ = outcome, value = observe(partial(call, module), args, kwargs, Ear())
    if others or outcome.boxes.filled or contents.changed():
        filled = ", ".join(outcome.boxes.filled)
        held = f"changes what it is given ({filled})" if filled else "changes what it holds"
        what = f"is given an object {next(iter(others))!r}" if others else held
        raise CaptureError(
            f"a {type(module).__name__} runs on values alone and {what}, so that it may do more than give a value, "
            "which a graph would not see: name the function in it that needs values, or use backend='eager'"
        )
    return outcome, value
