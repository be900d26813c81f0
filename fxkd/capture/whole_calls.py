"""Calls that were seen of a function that runs on values alone: what each was given, and what it gave."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fxkd.capture.forms import Form, Parts, dims, form_of_call, form_of_result
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


wholes: dict[str, Whole] = {}
objects: dict[int, Any] = {}


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
