"""Fake twins: while a model is recorded its parameters, buffers and tensor attributes are shapes without values."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def fake_of(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make a fake of a tensor, which may be what something else made: an input, a weight that a hook computes.

    To do so torch reads the gradient of the tensor, and warns that one that is no leaf has none.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        fake: Tensor = mode.from_tensor(tensor, static_shapes=True)
    return fake


@contextmanager
def fake_twins(model: nn.Module, mode: FakeTensorMode) -> Iterator[dict[int, tuple[Tensor, str]]]:
    """Swap every tensor of ``model`` for its twin; give where each twin hangs, by its identity.

    A tensor that hangs in two places (tied weights) has one twin and the first of its names.
    """
    places: dict[int, tuple[Tensor, str]] = {}
    swapped = []
    for prefix, module in list(model.named_modules()):
        for holder in (module._parameters, module._buffers, module.__dict__):
            for key, value in list(holder.items()):
                if isinstance(value, Tensor):
                    is_fake = isinstance(value, FakeTensor)  # an earlier run of the same capture left it
                    twin = value if is_fake else fake_of(mode, value)
                    swapped.append((holder, key, value))
                    holder[key] = twin
                    places.setdefault(id(twin), (twin, f"{prefix}.{key}" if prefix else key))
    try:
        yield places
    finally:
        for holder, key, value in swapped:
            holder[key] = value
