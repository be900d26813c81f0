"""A function that runs on values alone as one operator, so that ``torch.compile`` takes the graph around it whole.

Outside of a compiled region the function is called as it is. Inside, one operator calls it at every step; what it gives
there (how many tensors, of which types, how their sizes follow from what it is given) is known from the calls that were
seen when the model was captured, and is checked at every step.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.forms import Form, Parts, dims, follow, form_of_call, form_of_result, put_together, result_of
from fxkd.capture.structure import storages
from fxkd.errors import CaptureError, GuardError

MOST_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that was seen.

    Args:
        given: The sizes of what it was given.
        form: The form of what it gave.
        tensors: What it gave: data type, place and sizes of each tensor.
        changed: Which of its tensors it wrote to.
    """

    given: tuple[int, ...]
    form: Form
    tensors: tuple[tuple[torch.dtype, str, tuple[int, ...]], ...]
    changed: tuple[int, ...]


@dataclass(slots=True)
class Whole:
    """A function, and the calls of it that were seen, by the form of what they were given."""

    path: str
    function: Callable[..., Any]
    samples: dict[Form, list[Sample]] = field(default_factory=dict)
    failures: dict[Form, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """A call in a compiled graph: the function, the form of its arguments, the objects among them, what it promised."""

    whole: Whole
    form: Form
    objects: tuple[Any, ...]
    result: Form
    tensors: tuple[tuple[torch.dtype, str], ...]
    sizes: tuple[tuple[Any, ...], ...]  # of each tensor, as ``follow`` says it
    changed: tuple[int, ...]


wholes: dict[str, Whole] = {}
sites: dict[str, Site] = {}
objects: dict[int, Any] = {}


@cache
def as_whole(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Give what stands for ``function`` in a graph, the same for the same function."""
    name = f"{path}#{len(wholes)}"
    wholes[name] = Whole(path, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return _in_compiled(name, args, kwargs)

    call.__name__ = call.__qualname__ = getattr(function, "__name__", "call").replace(".", "_")
    call.__module__, call.whole = __name__, wholes[name]  # type: ignore[attr-defined]
    return call


def whole_of(function: Callable[..., Any], path: str) -> Whole:
    """Give what is known of a function."""
    found: Whole = as_whole(function, path).whole  # type: ignore[attr-defined]
    return found


def note(whole: Whole, args: Any, kwargs: Any, value: Any, changed: tuple[int, ...]) -> None:
    """Keep what one call was given and gave."""
    parts = Parts([], [], [], [])
    form = form_of_call((args, kwargs), parts)
    _keep_objects((args, kwargs))
    tensors: list[Tensor] = []
    try:
        result = form_of_result(value, parts.tensors, tensors, whole.path)
    except CaptureError as error:
        whole.failures[form] = str(error)
        return
    known = tuple((t.dtype, _place(t, parts.tensors), tuple(t.shape)) for t in tensors)
    samples = whole.samples.setdefault(form, [])
    sample = Sample(tuple(dims(parts)), result, known, changed)
    if sample not in samples:
        samples.append(sample)
        del samples[:-MOST_SAMPLES]


def _keep_objects(value: Any) -> None:
    """Find objects again by their identity, as long as somebody else keeps them."""
    if isinstance(value, (list, tuple)):
        for part in value:
            _keep_objects(part)
    elif isinstance(value, dict):
        _keep_objects(list(value.values()))
    elif not isinstance(value, (Tensor, int, float, str, type(None))):
        objects[id(value)] = value
        with suppress(TypeError):
            objects[id(value)] = weakref.ref(value)


def _place(tensor: Tensor, given: Sequence[Tensor]) -> str:
    """Say on which device a tensor is: that of what was given, if it is the same."""
    return "given" if given and given[0].device == tensor.device else str(tensor.device)


# Inside a compiled region


def _in_compiled(name: str, args: Any, kwargs: Any) -> Any:
    parts = Parts([], [], [], [])
    form = form_of_call((args, kwargs), parts)
    needs = any([tensor.requires_grad for tensor in parts.tensors]) and torch.is_grad_enabled()
    key = _site(name, form, tuple(parts.objects), needs)
    result, sizes, changed = _promised(key)
    known = dims(parts)
    promised = [_size(how, known) for tensor in sizes for how in tensor]
    made = torch.ops.fxkd.whole(key, parts.tensors, parts.numbers, parts.reals, promised)
    for index, value in zip(changed, made[len(sizes) :], strict=True):
        parts.tensors[index].copy_(value)
    return result_of(result, parts.tensors, made)


def _size(how: tuple[str, int], known: list[Any]) -> Any:
    if how[0] == "same":
        return known[how[1]]
    return how[1] if how[0] == "constant" else -1 - how[1]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _site(name: str, form: Form, identities: tuple[int, ...], needs_gradient: bool) -> str:
    """Register one call while it is compiled, each under a key of its own, so that no two become one."""
    whole = wholes[name]
    samples = whole.samples.get(form, [])
    _refuse(whole, form, samples, needs_gradient)
    columns = zip(*(_sizes_of(sample) for sample in samples), strict=True)
    ways = iter(follow([tuple(column) for column in columns], [sample.given for sample in samples]))
    last = samples[-1]
    sizes = tuple(tuple(next(ways) for _ in shape) for _, _, shape in last.tensors)
    kinds = tuple((dtype, place) for dtype, place, _ in last.tensors)
    changed = tuple(sorted({index for sample in samples for index in sample.changed}))
    found = tuple(_object(whole, identity) for identity in identities)
    key = f"{name}@{len(sites)}"
    sites[key] = Site(whole, form, found, last.form, kinds, sizes, changed)
    return key


def _sizes_of(sample: Sample) -> list[int]:
    return [size for _, _, shape in sample.tensors for size in shape]


def _refuse(whole: Whole, form: Form, samples: list[Sample], needs_gradient: bool) -> None:
    """Refuse what cannot be one operator.

    Raises:
        CaptureError: Says why, and what to do.
    """
    if form in whole.failures:
        raise CaptureError(whole.failures[form])
    if not samples:
        raise CaptureError(
            f"{whole.path!r} is called in a way that was not seen when the models were captured: call the distiller "
            "once outside of torch.compile with such inputs"
        )
    forms = {(sample.form, tuple(entry[0] for entry in sample.tensors)) for sample in samples}
    if len(forms) > 1 or len({len(_sizes_of(sample)) for sample in samples}) > 1:
        raise CaptureError(
            f"{whole.path!r} gives now this, now that ({_told(samples[0])}, {_told(samples[-1])}), which no compiled "
            "graph can follow: let it give as many tensors, of the same types, at every call, or use compile=False"
        )
    if needs_gradient and any(dtype.is_floating_point for dtype, _, _ in samples[-1].tensors):
        raise CaptureError(
            f"{whole.path!r} runs on values alone and is given tensors that need gradients: inside torch.compile "
            "these would end in it. Let it take detached tensors, or use compile=False"
        )


def _told(sample: Sample) -> str:
    shapes = ", ".join(f"{tuple(shape)} of {str(dtype).removeprefix('torch.')}" for dtype, _, shape in sample.tensors)
    return f"a {sample.form[0]}: {shapes or 'no tensors'}"


def _object(whole: Whole, identity: int) -> Any:
    held = objects.get(identity)
    found = held() if isinstance(held, weakref.ref) else held
    if found is None:
        raise CaptureError(
            f"{whole.path!r} is called with an object that was not there when the models were captured: call the "
            "distiller once outside of torch.compile"
        )
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _promised(key: str) -> tuple[Form, tuple[Any, ...], tuple[int, ...]]:
    site = sites[key]
    return site.result, site.sizes, site.changed


# The operator: what a function writes to is copied first, and given back behind what it gives

library = torch.library.Library("fxkd", "DEF")
library.define("whole(str key, Tensor[] given, SymInt[] numbers, float[] reals, SymInt[] sizes) -> Tensor[]")


def _run(key: str, given: list[Tensor], numbers: list[int], reals: list[float], sizes: list[int]) -> list[Tensor]:
    """Call the function at a step, and check that it gives what was promised."""
    site = sites[key]
    given = [tensor.clone() if index in site.changed else tensor for index, tensor in enumerate(given)]
    versions = [tensor._version for tensor in given]
    args, kwargs = put_together(site.form, Parts(given, list(numbers), list(reals), []), site.objects)
    value = site.whole.function(*args, **kwargs)
    changed = tuple(index for index, tensor in enumerate(given) if tensor._version != versions[index])
    tensors: list[Tensor] = []
    form = form_of_result(value, given, tensors, site.whole.path)
    promised = iter(sizes)
    wanted = [[next(promised) for _ in shape] for shape in site.sizes]
    if form != site.result or not set(changed) <= set(site.changed) or not _as_promised(site, tensors, wanted):
        note(site.whole, args, kwargs, value, changed)
        raise GuardError(_broken(site, tensors, wanted))
    memory = storages(given)
    made = [tensor.clone() if storages(tensor) & memory else tensor.contiguous() for tensor in tensors]
    return made + [given[index] for index in site.changed]


def _as_promised(site: Site, tensors: list[Tensor], wanted: list[list[int]]) -> bool:
    """Compare kinds and sizes; a negative size stands for any, the same one wherever it stands."""
    free: dict[int, int] = {}
    for tensor, (dtype, _), sizes in zip(tensors, site.tensors, wanted, strict=True):
        if tensor.dtype != dtype or tensor.dim() != len(sizes):
            return False
        for size, promised in zip(tensor.shape, sizes, strict=True):
            if size != (promised if promised >= 0 else free.setdefault(promised, size)):
                return False
    return True


def _broken(site: Site, tensors: list[Tensor], wanted: list[list[int]]) -> str:
    found = ", ".join(f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in tensors) or "no tensors"
    promised = ", ".join(f"{tuple(s)} of {d}" for s, (d, _) in zip(wanted, site.tensors, strict=True)) or "no tensors"
    return (
        f"{site.whole.path!r} gave {found} at this step, and the compiled graph holds only while it gives {promised} "
        "(below 0: any size): what it gives, or what it writes to, depends on values in a way that was not seen before. "
        "It is known from now on: compile anew (torch._dynamo.reset()), or use compile=False"
    )


def _fake(key: str, given: list[Tensor], numbers: list[Any], reals: list[float], sizes: list[Any]) -> list[Tensor]:
    """Give tensors of the promised kinds and sizes; those that values decide are new ones."""
    site, promised = sites[key], iter(sizes)
    free: dict[int, Any] = {}
    made = []
    for (dtype, place), ways in zip(site.tensors, site.sizes, strict=True):
        shape = [next(promised) for _ in ways]
        for index, (kind, number) in enumerate(ways):
            if kind == "free" and number not in free:
                free[number] = torch.library.get_ctx().new_dynamic_size()
            shape[index] = free[number] if kind == "free" else shape[index]
        made.append(torch.empty(shape, dtype=dtype, device=given[0].device if place == "given" else place))
    return made + [torch.empty_like(given[index]) for index in site.changed]


library.impl("whole", _run, "CompositeExplicitAutograd")
torch.library.register_fake("fxkd::whole", _fake, lib=library)
