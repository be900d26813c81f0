"""A function that runs on values alone as one operator, so that ``torch.compile`` takes the graph around it whole.

Outside of a compiled region the function is called as it is. Inside, one operator calls it at every step; what it gives
there (how many tensors, of which types, how their sizes follow from what it is given) is known from the calls that were
seen when the model was captured, and is checked at every step.
"""

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fxkd.capture.forms import Form, Parts, dims, follow, form_of_call, form_of_result, put_together, result_of
from fxkd.capture.structure import storages
from fxkd.capture.structure import tensors as tensors_in
from fxkd.errors import CaptureError, GuardError

MOST_SAMPLES, MOST_KEPT = 32, 256


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that was seen.

    Args:
        given: The sizes of what it was given.
        form: The form of what it gave.
        tensors: What it gave: data type, place and sizes of each tensor.
        changed: Which of its tensors it wrote to.
        gradients: Through which of the tensors that it gave gradients flow; None if nothing it was given needed any.
    """

    given: tuple[int, ...]
    form: Form
    tensors: tuple[tuple[torch.dtype, str, tuple[int, ...]], ...]
    changed: tuple[int, ...]
    gradients: tuple[bool, ...] | None


@dataclass(slots=True)
class Whole:
    """A function, and the calls of it that were seen, by the form of what they were given."""

    path: str
    function: Callable[..., Any]
    samples: dict[Form, list[Sample]] = field(default_factory=dict)
    failures: dict[Form, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """A call in a compiled graph.

    Args:
        whole: The function.
        form: The form of its arguments.
        objects: The objects among them.
        result: The form of what it gives.
        tensors: Data type and place of each tensor that it gives.
        sizes: How the sizes of each follow from what it is given, as ``follow`` says it.
        changed: Which of the tensors it is given it may write to.
        gradients: Through which of the tensors that it gives gradients flow.
        needing: Which of the tensors it is given need gradients, where any flow.
    """

    whole: Whole
    form: Form
    objects: tuple[Any, ...]
    result: Form
    tensors: tuple[tuple[torch.dtype, str], ...]
    sizes: tuple[tuple[Any, ...], ...]
    changed: tuple[int, ...]
    gradients: tuple[bool, ...] = ()
    needing: tuple[int, ...] = ()


wholes: dict[str, Whole] = {}
sites: dict[str, Site] = {}
objects: dict[int, Any] = {}
kept: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
tickets = count()


@cache
def as_whole(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Give what stands for ``function`` in a graph, the same for the same function."""
    name = f"{path}#{len(wholes)}"
    wholes[name] = Whole(path, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _in_compiled(name, args, kwargs)
        value = function(*args, **kwargs)
        _refuse_fakes(path, value, (args, kwargs))
        return value

    call.__name__ = call.__qualname__ = getattr(function, "__name__", "call").replace(".", "_")
    call.__module__, call.whole = __name__, wholes[name]  # type: ignore[attr-defined]
    return call


def _refuse_fakes(path: str, value: Any, given: Any) -> None:
    """Refuse what was made of tensors without values: those of an object that a forward made while it was recorded."""
    if any(isinstance(tensor, FakeTensor) for tensor in tensors_in(value)):
        if any(isinstance(tensor, FakeTensor) for tensor in tensors_in(given)):
            return
        raise CaptureError(
            f"{path!r} works on tensors of an object that the forward makes anew at each call, so that it cannot be "
            "one node: name the function or method that makes the object, or use backend='eager'"
        )


def whole_of(function: Callable[..., Any], path: str) -> Whole:
    """Give what is known of a function."""
    found: Whole = as_whole(function, path).whole  # type: ignore[attr-defined]
    return found


def note(whole: Whole, args: Any, kwargs: Any, value: Any, changed: tuple[int, ...]) -> None:
    """Keep what one call was given and gave."""
    parts = Parts([], [], [], [])
    form = form_of_call((args, kwargs), parts)
    keep_objects((args, kwargs))
    tensors: list[Tensor] = []
    try:
        result = form_of_result(value, parts.tensors, tensors, whole.path)
    except CaptureError as error:
        whole.failures[form] = str(error)
        return
    known = tuple((t.dtype, _place(t, parts.tensors), tuple(t.shape)) for t in tensors)
    samples = whole.samples.setdefault(form, [])
    needs = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parts.tensors)
    flowing = tuple(tensor.requires_grad for tensor in tensors) if needs else None
    sample = Sample(tuple(dims(parts)), result, known, changed, flowing)
    if sample not in samples:
        samples.append(sample)
        del samples[:-MOST_SAMPLES]


def keep_objects(value: Any) -> None:
    """Find objects again by their identity, as long as somebody else keeps them."""
    if isinstance(value, (list, tuple)):
        for part in value:
            keep_objects(part)
    elif isinstance(value, dict):
        keep_objects(list(value.values()))
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
    is_on = torch.is_grad_enabled()
    needing = tuple([index for index, tensor in enumerate(parts.tensors) if is_on and tensor.requires_grad])
    key = _site(name, form, tuple(parts.objects), needing)
    result, sizes, changed, gradients = _promised(key)
    known = dims(parts)
    promised = [_size(how, known) for tensor in sizes for how in tensor]
    made = torch.ops.fxkd.whole(key, parts.tensors, parts.numbers, parts.reals, promised)
    for index, value in zip(changed, made[len(sizes) : len(sizes) + len(changed)], strict=True):
        parts.tensors[index].copy_(value)
    given = [value if flows else value.detach() for value, flows in zip(made, gradients, strict=False)]
    return result_of(result, parts.tensors, given)


def _size(how: tuple[str, int], known: list[Any]) -> Any:
    if how[0] == "same":
        return known[how[1]]
    return how[1] if how[0] == "constant" else -1 - how[1]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _site(name: str, form: Form, identities: tuple[int, ...], needing: tuple[int, ...]) -> str:
    """Register one call while it is compiled, each under a key of its own, so that no two become one."""
    whole = wholes[name]
    samples = whole.samples.get(form, [])
    flowing = [sample.gradients for sample in samples if sample.gradients is not None] if needing else []
    _refuse(whole, form, samples)
    if needing and not flowing:
        raise CaptureError(_unseen(whole))
    columns = zip(*(_sizes_of(sample) for sample in samples), strict=True)
    ways = iter(follow([tuple(column) for column in columns], [sample.given for sample in samples]))
    last = samples[-1]
    sizes = tuple(tuple(next(ways) for _ in shape) for _, _, shape in last.tensors)
    gradients = tuple(map(any, zip(*flowing, strict=True))) if flowing else (False,) * len(sizes)
    changed = tuple(sorted({index for sample in samples for index in sample.changed}))
    if any(gradients) and changed:
        raise CaptureError(
            f"{whole.path!r} writes to what it is given, and gradients flow through it: that cannot be one operator of "
            "a compiled graph; let it work on a copy, or use compile=False"
        )
    if any(kind == "free" for ways_of_one in sizes for kind, _ in ways_of_one):
        logging.getLogger("fxkd").warning(
            "%s, if torch.compile stops at a data-dependent value", undecided(repr(whole.path))
        )
    key = f"{name}@{len(sites)}"
    sites[key] = Site(
        whole=whole,
        form=form,
        objects=tuple(_object(whole, identity) for identity in identities),
        result=last.form,
        tensors=tuple((dtype, place) for dtype, place, _ in last.tensors),
        sizes=sizes,
        changed=changed,
        gradients=gradients,
        needing=needing if any(gradients) else (),
    )
    return key


def _sizes_of(sample: Sample) -> list[int]:
    return [size for _, _, shape in sample.tensors for size in shape]


def _refuse(whole: Whole, form: Form, samples: list[Sample]) -> None:
    """Refuse what cannot be one operator.

    Raises:
        CaptureError: Says why, and what to do.
    """
    if form in whole.failures:
        raise CaptureError(whole.failures[form])
    if not samples:
        raise CaptureError(_unseen(whole))
    forms = {(sample.form, tuple((dtype, len(shape)) for dtype, _, shape in sample.tensors)) for sample in samples}
    if len(forms) > 1:
        raise CaptureError(
            f"{whole.path!r} gives now this, now that ({_told(samples[0])}, {_told(samples[-1])}), which no compiled "
            "graph can follow: let it give as many tensors, of the same types, at every call, or use compile=False"
        )


def undecided(names: str) -> str:
    """Say what can be done where a compiled graph has to know a size that values decide."""
    return (
        f"sizes of what {names} gives depend on values, and a compiled graph may have to know them: let it give the "
        "same sizes at every step (a mask in place of indices, or padding), or use compile=False"
    )


def _unseen(whole: Whole) -> str:
    return (
        f"{whole.path!r} is called in a way that was not seen when the models were captured: call the distiller once "
        "outside of torch.compile with such inputs, in the same mode"
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
def _promised(key: str) -> tuple[Form, tuple[Any, ...], tuple[int, ...], tuple[bool, ...]]:
    site = sites[key]
    return site.result, site.sizes, site.changed, site.gradients


# The operator: what a function writes to is copied first, and given back behind what it gives

library = torch.library.Library("fxkd", "DEF")
library.define("whole(str key, Tensor[] given, SymInt[] numbers, float[] reals, SymInt[] sizes) -> Tensor[]")
library.define("whole_backward(str key, Tensor ticket, Tensor[] given, Tensor[] gradients, int[] which) -> Tensor[]")


def _run(key: str, given: list[Tensor], numbers: list[int], reals: list[float], sizes: list[int]) -> list[Tensor]:
    """Call the function at a step, and check that it gives what was promised."""
    site = sites[key]
    given = [_own(site, index, tensor) for index, tensor in enumerate(given)]
    versions = [tensor._version for tensor in given]
    args, kwargs = put_together(site.form, Parts(given, list(numbers), list(reals), []), site.objects)
    with _gradients_on() if site.needing else torch.no_grad():
        value = site.whole.function(*args, **kwargs)
    changed = tuple(index for index, tensor in enumerate(given) if tensor._version != versions[index])
    tensors: list[Tensor] = []
    form = form_of_result(value, given, tensors, site.whole.path)
    promised = iter(sizes)
    wanted = [[next(promised) for _ in shape] for shape in site.sizes]
    if form != site.result or not set(changed) <= set(site.changed) or not _as_promised(site, tensors, wanted):
        note(site.whole, args, kwargs, value, changed)
        raise GuardError(_broken(site, tensors, wanted))
    made = [*_apart([tensor.detach() for tensor in tensors], given), *(given[index] for index in site.changed)]
    return [*made, _keep_for_backward(site, given, tensors)] if site.needing else made


@contextmanager
def _gradients_on() -> Iterator[None]:
    """Let torch make a graph of gradients inside an operator, where it makes none by itself."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradOther", "AutogradFunctionality", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _own(site: Site, index: int, tensor: Tensor) -> Tensor:
    """Give the function what it may write to, and what gradients are to be taken of."""
    if index in site.needing:
        return tensor.detach().requires_grad_()
    return tensor.clone() if index in site.changed else tensor


def _apart(tensors: list[Tensor], given: list[Tensor]) -> Iterator[Tensor]:
    """Yield tensors of which none shares memory with another or with what was given: an operator may give no other."""
    memory = storages(given)
    for tensor in tensors:
        yield tensor.clone() if storages(tensor) & memory else tensor.contiguous()
        memory |= storages(tensor)


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
        "(below 0: any size): what it gives, or what it writes to, depends on values in a way not seen before. "
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
    made += [torch.empty_like(given[index]) for index in site.changed]
    return [*made, torch.empty((), dtype=torch.int64)] if site.needing else made


# Gradients: the function makes its own small graph at each step, which is kept until its backward is called


def _keep_for_backward(site: Site, given: list[Tensor], tensors: list[Tensor]) -> Tensor:
    """Keep what a backward needs; give the ticket for it."""
    ticket = next(tickets)
    kept[ticket] = [given[index] for index in site.needing], tensors
    while len(kept) > MOST_KEPT:
        del kept[next(iter(kept))]  # steps whose backward was never called
    return torch.tensor(ticket)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.key, ctx.count = inputs[0], len(inputs[1])
    ctx.others = [None if numbers else [] for numbers in inputs[2:]]  # torch takes an empty list for one of tensors
    ctx.save_for_backward(*(output[-1:] if sites[ctx.key].needing else ()), *inputs[1])


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    site, (ticket, *given) = sites[ctx.key], ctx.saved_tensors
    flowing = [g if flows else None for g, flows in zip(gradients, site.gradients, strict=False)]
    which = [index for index, gradient in enumerate(flowing) if gradient is not None]
    found = torch.ops.fxkd.whole_backward(ctx.key, ticket, given, [flowing[index] for index in which], which)
    places = dict(zip(site.needing, found, strict=True))
    return None, [places.get(index) for index in range(ctx.count)], *ctx.others


def _run_backward(key: str, ticket: Tensor, given: list[Tensor], gradients: list[Tensor], which: list[int]) -> Any:
    inputs, outputs = kept.pop(int(ticket), (None, None))
    if inputs is None or outputs is None:
        raise CaptureError(
            f"the backward of {sites[key].whole.path!r} in a compiled graph can be called once, and for the last "
            f"{MOST_KEPT} steps: use compile=False"
        )
    real = [(outputs[index], g) for index, g in zip(which, gradients, strict=True) if outputs[index].requires_grad]
    found = (
        torch.autograd.grad(
            [output for output, _ in real], inputs, [gradient for _, gradient in real], allow_unused=True
        )
        if real
        else [None] * len(inputs)
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient.clone()
        for tensor, gradient in zip(inputs, found, strict=True)
    ]


def _fake_backward(key: str, ticket: Tensor, given: list[Tensor], gradients: list[Tensor], which: list[int]) -> Any:
    return [torch.empty_like(given[index]) for index in sites[key].needing]


library.impl("whole", _run, "CompositeExplicitAutograd")
library.impl("whole_backward", _run_backward, "CompositeExplicitAutograd")
torch.library.register_fake("fxkd::whole", _fake, lib=library)
torch.library.register_fake("fxkd::whole_backward", _fake_backward, lib=library)
torch.library.register_autograd("fxkd::whole", _backward, setup_context=_setup, lib=library)
torch.fx.node.has_side_effect(torch.ops.fxkd.whole.default)  # it is called, and checked, also where nothing reads it
