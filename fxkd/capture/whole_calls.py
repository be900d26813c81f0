"""Calls that were seen of what runs on values alone: what each was given, and what it gave."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.forms import Form, Parts, content, dims, form_of_call, form_of_result, has_fields
from fxkd.capture.reached import reached
from fxkd.errors import CaptureError

MOST_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that was seen.

    Args:
        given: The sizes of what it was given.
        form: The form of what it gave.
        tensors: What it gave: data type, place and sizes of each tensor.
        changed: Which of its tensors it wrote to.
        gradients: Through which of the tensors that it gave gradients flow; None if nothing it was given needed any.
        reached: To which of the tensors that it was given they flow.
    """

    given: tuple[int, ...]
    form: Form
    tensors: tuple[tuple[torch.dtype, str, tuple[int, ...]], ...]
    changed: tuple[int, ...]
    gradients: tuple[bool, ...] | None
    reached: tuple[int, ...]


@dataclass(slots=True)
class Whole:
    """A function, and the calls of it that were seen, by the form of what they were given and the autocast in force."""

    path: str
    function: Callable[..., Any]
    samples: dict[Any, list[Sample]] = field(default_factory=dict)
    failures: dict[Any, str] = field(default_factory=dict)


wholes: dict[str, Whole] = {}
objects: dict[int, Any] = {}


def autocast_in_force() -> tuple[tuple[str, torch.dtype], ...]:
    """Give the devices on which autocast is on, and its type there.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_in_force()
    (('cpu', torch.bfloat16),)
    """
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))


def note(whole: Whole, args: Any, kwargs: Any, value: Any, changed: Sequence[Tensor]) -> None:
    """Keep what one call was given, gave and wrote to."""
    parts = Parts([], [], [], [])
    key = form_of_call((args, kwargs), parts), autocast_in_force()
    keep_objects((args, kwargs))
    try:
        sample = _sample(whole, parts, value, changed)
    except CaptureError as error:
        whole.failures[key] = str(error)
        return
    samples = whole.samples.setdefault(key, [])
    if sample not in samples:
        samples.append(sample)
        del samples[:-MOST_SAMPLES]


def _sample(whole: Whole, parts: Parts, value: Any, changed: Sequence[Tensor]) -> Sample:
    """Describe a call.

    Raises:
        CaptureError: One operator cannot stand for it.
    """
    tensors: list[Tensor] = []
    result = form_of_result(value, parts.tensors, tensors, whole.path)
    places = {id(tensor): index for index, tensor in enumerate(parts.tensors)}
    if not places.keys() >= set(map(id, changed)):
        raise CaptureError(f"{whole.path!r} writes to a tensor in an object that it is given, {INSIDE}")
    flows, is_foreign = reached(parts.tensors, tensors)
    if is_foreign:
        raise CaptureError(foreign(whole.path))
    needs = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parts.tensors)
    return Sample(
        given=tuple(dims(parts)),
        form=result,
        tensors=tuple((t.dtype, _place(t, parts.tensors), tuple(t.shape)) for t in tensors),
        changed=tuple(sorted(places[id(tensor)] for tensor in changed)),
        gradients=tuple(tensor.requires_grad for tensor in tensors) if needs else None,
        reached=flows,
    )


INSIDE = "which a compiled graph would not see: give it the tensor itself, or use compile=False"


def foreign(path: str) -> str:
    """Say that gradients would be lost."""
    return f"gradients flow through {path!r} to a tensor that it is not given, {INSIDE}"


def keep_objects(value: Any) -> None:
    """Find objects again by their identity, as long as somebody else keeps them."""
    if type(value) in (list, tuple):
        for part in value:
            keep_objects(part)
    elif has_fields(value):
        keep_objects(list(content(value).values()))
    elif not isinstance(value, (Tensor, int, float, str, type(None))):
        objects[id(value)] = value
        with suppress(TypeError):
            objects[id(value)] = weakref.ref(value)


def _place(tensor: Tensor, given: Sequence[Tensor]) -> str:
    """Say on which device a tensor is: that of what was given, if it is the same."""
    return "given" if given and given[0].device == tensor.device else str(tensor.device)
