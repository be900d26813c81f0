"""Leave no trace: a model, the random generators and the grad mode are after a capture what they were before."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper

import torch
from torch import Tensor, nn

from fxkd.capture.contents import Contents
from fxkd.capture.draws import random_states, set_random_states

LIBRARIES = ("torch.", "sympy.", "fxkd.")  # whose caches hold no tensors of a run


@contextmanager
def preserved(model: nn.Module, *, values: bool = False, contents: "Contents | None" = None) -> Iterator[None]:
    """Put back attributes, containers, random states and the grad mode at the end, also on failure.

    Args:
        model: What is about to run.
        values: Whether the run is on real tensors, so that parameters and buffers must be kept too.
        contents: What the model holds, where that is known; ``values_put_back`` is around.
    """
    is_known, contents = contents is not None, contents or Contents(model)
    copies = contents.copies if values else []
    before = [_version(tensor) if is_known else None for tensor, _ in copies]
    own = contents.generators
    grad, states, own_states = torch.is_grad_enabled(), random_states(), own.states()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        set_random_states(states)
        own.put_back(own_states)
        contents.put_back()
        pairs = zip(copies, before, strict=True)
        put_back_values([copied for copied, count in pairs if count is None or count != _version(copied[0])])


def _version(tensor: Tensor) -> int | None:
    """Give how often a parameter was written to; None of what norms write to, which torch does not count."""
    is_counted = isinstance(tensor, nn.Parameter) and not tensor.is_inference()
    return tensor._version if is_counted else None


@contextmanager
def values_put_back(contents: Contents) -> Iterator[None]:
    """Put back at the end the values that were copied, also what was written to parameters without being counted."""
    try:
        yield
    finally:
        put_back_values(contents.__dict__.get("copies", []))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage: in a large program that takes longer than many captures."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Caches:
    """Every ``lru_cache`` outside torch: a tensor without values must not stay in one."""

    def __init__(self) -> None:
        held = [held for held in gc.get_referrers(_lru_cache_wrapper) if type(held) is _lru_cache_wrapper]
        own = [cache for cache in held if not str(getattr(cache, "__module__", "")).startswith(LIBRARIES)]
        self._misses = [(cache, cache.cache_info().misses) for cache in own]

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Empty at the end those into which something was put; an emptied one counts from nothing."""
        try:
            yield
        finally:
            for place, (cache, misses) in enumerate(self._misses):
                if cache.cache_info().misses != misses:
                    cache.cache_clear()
                    self._misses[place] = cache, 0


def put_back_values(buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Write back what changed; what did not is not touched, as somebody's backward may need it."""
    with torch.no_grad():
        for buffer, value in buffers:
            if not buffer.is_meta and not torch.equal(buffer, value):
                buffer.copy_(value)
