"""The calls of such a function in a compiled graph: what is promised there of what it gives."""

import logging
import weakref
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch

from fxkd.capture.forms import Form, follow
from fxkd.capture.whole_calls import Sample, Whole, autocast_in_force, objects, wholes
from fxkd.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Site:
    """A call in a compiled graph.

    Args:
        whole: The function.
        form: The form of its arguments.
        objects: The objects among them, or weak references to them.
        result: The form of what it gives.
        tensors: Data type and place of each tensor that it gives.
        sizes: How the sizes of each follow from what it is given, as ``follow`` says it.
        changed: Which of the tensors it is given it may write to.
        gradients: Through which of the tensors that it gives gradients flow.
        asking: Which of the tensors it is given need gradients.
        needing: To which of these gradients flow.
        autocast: The devices on which autocast is on around it, and its type there.
    """

    whole: Whole
    form: Form
    objects: tuple[Any, ...]
    result: Form
    tensors: tuple[tuple[torch.dtype, str], ...]
    sizes: tuple[tuple[Any, ...], ...]
    changed: tuple[int, ...]
    gradients: tuple[bool, ...] = ()
    asking: tuple[int, ...] = ()
    needing: tuple[int, ...] = ()
    autocast: tuple[tuple[str, torch.dtype], ...] = ()

    def told(self) -> str:
        """Say in short what is promised: torch keeps compiled graphs on disk, and finds them by this."""
        promised = (self.form, self.result, self.tensors, self.sizes, self.changed, self.gradients)
        return sha256(repr((promised, self.asking, self.needing, self.autocast)).encode()).hexdigest()[:16]


sites: dict[str, Site] = {}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def site_of(name: str, form: Form, identities: tuple[int, ...], asking: tuple[int, ...]) -> str:
    """Register one call while it is compiled, each under a key of its own, so that no two become one."""
    whole, autocast = wholes[name], autocast_in_force()
    samples = whole.samples.get((form, autocast), [])
    flowing = [sample.gradients for sample in samples if sample.gradients is not None] if asking else []
    _refuse(whole, whole.failures.get((form, autocast)), samples)
    if asking and not flowing:
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
    site = Site(
        whole=whole,
        form=form,
        objects=tuple(_held(whole, identity) for identity in identities),
        result=last.form,
        tensors=tuple((dtype, place) for dtype, place, _ in last.tensors),
        sizes=sizes,
        changed=changed,
        gradients=gradients,
        asking=asking,
        needing=tuple(index for index in asking if any(index in sample.reached for sample in samples)),
        autocast=autocast,
    )
    key = f"{name}@{len(sites)}:{site.told()}"
    sites[key] = site
    return key


def _sizes_of(sample: Sample) -> list[int]:
    return [size for _, _, shape in sample.tensors for size in shape]


def _refuse(whole: Whole, failure: str | None, samples: list[Sample]) -> None:
    """Refuse what cannot be one operator.

    Raises:
        CaptureError: Says why, and what to do.
    """
    if failure is not None:
        raise CaptureError(failure)
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


def _held(whole: Whole, identity: int) -> Any:
    found = objects.get(identity)
    found_at(whole, found)
    return found


def found_at(whole: Whole, held: Any) -> Any:
    """Give an object that a call is given, which somebody else keeps.

    Raises:
        CaptureError: Nobody does.
    """
    found = held() if isinstance(held, weakref.ref) else held
    if found is None:
        raise CaptureError(
            f"{whole.path!r} is called with an object that was not there when the models were captured: call the "
            "distiller once outside of torch.compile"
        )
    return found


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def promised_at(key: str) -> tuple[Form, tuple[Any, ...], tuple[int, ...], tuple[bool, ...]]:
    """Give what is promised of one call: its form, how its sizes follow, what it writes to, where gradients flow."""
    site = sites[key]
    return site.result, site.sizes, site.changed, site.gradients
