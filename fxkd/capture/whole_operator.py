"""The operator that calls such a function at each step of a compiled graph, and checks what was promised."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.forms import Parts, form_of_result, modules_in, put_together
from fxkd.capture.reached import reached
from fxkd.capture.whole_calls import foreign, note
from fxkd.capture.whole_sites import Site, found_at, sites
from fxkd.errors import CaptureError, GuardError

ANEW = "It is known from now on: compile anew (torch._dynamo.reset()), or use compile=False"

kept: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
tickets = count()

# What a function writes to is copied first, and given back behind what it gives

library = torch.library.Library("fxkd", "DEF")
library.define("whole(str key, Tensor[] given, SymInt[] numbers, float[] reals, SymInt[] sizes) -> Tensor[]")
library.define("whole_backward(str key, Tensor ticket, Tensor[] given, Tensor[] gradients, int[] which) -> Tensor[]")


def _run(key: str, given: list[Tensor], numbers: list[int], reals: list[float], sizes: list[int]) -> list[Tensor]:
    """Call the function at a step, and check that it gives what was promised."""
    site = sites[key]
    objects = [found_at(site.whole, held) for held in site.objects]
    given = _own(site, given, objects)
    versions = [tensor._version for tensor in given]
    args, kwargs = put_together(site.form, Parts(given, list(numbers), list(reals), []), objects)
    with _gradients_on() if site.asking else torch.no_grad(), _autocast_on(site):
        value = site.whole.function(*args, **kwargs)
    changed = [index for index, tensor in enumerate(given) if tensor._version != versions[index]]
    tensors: list[Tensor] = []
    form = form_of_result(value, given, tensors, site.whole.path)
    promised = iter(sizes)
    wanted = [[next(promised) for _ in shape] for shape in site.sizes]
    if form != site.result or not set(changed) <= set(site.changed) or not _as_promised(site, tensors, wanted):
        note(site.whole, args, kwargs, value, [given[index] for index in changed])
        raise GuardError(_broken(site, tensors, wanted))
    if _has_other_gradients(site, given, tensors):
        note(site.whole, args, kwargs, value, [given[index] for index in changed])
        raise GuardError(
            f"gradients flow through {site.whole.path!r} at this step as they did in none of the calls seen before, "
            f"so that the compiled graph would lose them. {ANEW}"
        )
    made = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]
    made += [given[index] for index in site.changed]
    return [*made, _keep_for_backward(site, given, tensors)] if site.needing else made


def _own(site: Site, given: list[Tensor], objects: list[Any]) -> list[Tensor]:
    """Give the function parameters of modules themselves, and copies of what it may write to or keep for a backward.

    The memory of what an operator is given and gives is used for other things as soon as the graph needs it no more.
    """
    own: dict[int, Tensor] = {}
    for index, first, length in modules_in(site.form):
        own.update(zip(range(first, first + length), objects[index].parameters(), strict=True))
    copied = range(len(given)) if site.needing else {*site.asking, *site.changed}
    for index in set(copied).difference(own):
        own[index] = given[index].detach().clone().requires_grad_(index in site.asking)
    return [own.get(index, tensor) for index, tensor in enumerate(given)]


@contextmanager
def _autocast_on(site: Site) -> Iterator[None]:
    """Turn on the autocast around the call, which a compiled graph turns off where it runs."""
    with ExitStack() as stack:
        for kind, dtype in site.autocast:
            stack.enter_context(torch.autocast(kind, dtype))
        yield


def _has_other_gradients(site: Site, given: list[Tensor], tensors: list[Tensor]) -> bool:
    """Tell whether gradients flow in ways that the compiled graph does not have.

    Raises:
        CaptureError: They flow to what no compiled graph can see.
    """
    flows, is_foreign = reached(given, tensors)
    if is_foreign:
        raise CaptureError(foreign(site.whole.path))
    is_new = [tensor.requires_grad and not ever for tensor, ever in zip(tensors, site.gradients, strict=True)]
    return any(is_new) or not set(flows) <= set(site.needing)


@contextmanager
def _gradients_on() -> Iterator[None]:
    """Let torch make a graph of gradients inside an operator, where it makes none by itself."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradOther", "AutogradFunctionality", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


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
        f"{ANEW}"
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


# Gradients: the function makes its own small graph at each step, which is kept until its backward is called or dropped


def _keep_for_backward(site: Site, given: list[Tensor], tensors: list[Tensor]) -> Tensor:
    """Keep what a backward needs, as long as the ticket for it is kept; give the ticket."""
    number = next(tickets)
    ticket = torch.tensor(number)
    kept[number] = [given[index] for index in site.needing], tensors
    weakref.finalize(ticket.untyped_storage(), kept.pop, number, None)
    return ticket


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
            f"the backward of {sites[key].whole.path!r} in a compiled graph can be called once: use compile=False"
        )
    real = [(outputs[index], g) for index, g in zip(which, gradients, strict=True) if outputs[index].requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if real:
        made, flowing = zip(*real, strict=True)
        with _unhooked(inputs):
            found = torch.autograd.grad(made, inputs, flowing, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient.clone()
        for tensor, gradient in zip(inputs, found, strict=True)
    ]


@contextmanager
def _unhooked(tensors: list[Tensor]) -> Iterator[None]:
    """Take off the hooks of parameters: they are called on what the whole graph gives, once."""
    hooks = [tensor._backward_hooks for tensor in tensors]
    try:
        for tensor in tensors:
            tensor._backward_hooks = None
        yield
    finally:
        for tensor, own in zip(tensors, hooks, strict=True):
            tensor._backward_hooks = own


def _fake_backward(key: str, ticket: Tensor, given: list[Tensor], gradients: list[Tensor], which: list[int]) -> Any:
    return [torch.empty_like(given[index]) for index in sites[key].needing]


library.impl("whole", _run, "CompositeExplicitAutograd")
library.impl("whole_backward", _run_backward, "CompositeExplicitAutograd")
torch.library.register_fake("fxkd::whole", _fake, lib=library)
torch.library.register_fake("fxkd::whole_backward", _fake_backward, lib=library)
torch.library.register_autograd("fxkd::whole", _backward, setup_context=_setup, lib=library)
torch.fx.node.has_side_effect(torch.ops.fxkd.whole.default)  # it is called, and checked, also where nothing reads it
