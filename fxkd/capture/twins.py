"""Fake twins: while a model is recorded its parameters, buffers and tensor attributes are shapes without values."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fxkd.capture.fake_mode import Mode


def fake_of(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make a fake of a tensor, which may be what something else made: an input, a weight that a hook computes.

    To do so torch reads the gradient of the tensor, and warns that one that is no leaf has none.
    """
    if tensor.is_leaf:
        return mode.from_tensor(tensor, static_shapes=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        fake: Tensor = mode.from_tensor(tensor, static_shapes=True)
    return fake


def fake_like(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make a fake that looks like a tensor and has no gradient."""
    is_plain = type(tensor) is Tensor and tensor.layout is torch.strided and not (tensor.is_conj() or tensor.is_neg())
    if not is_plain or tensor.storage_offset() or tensor._is_view():
        return fake_of(mode, tensor).detach()
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


class Fakes:
    """A mode for run after run: what it once made a fake of has it, as long as no run changed what a fake can show."""

    def __init__(self) -> None:
        self._mode, self._made = Mode(), list[tuple[Tensor, Any]]()
        self._twins: dict[int, tuple[Tensor, Tensor]] = {}

    def mode(self) -> FakeTensorMode:
        """Give a mode of which every fake is as it was made."""
        if any(_shown(fake) != shown for fake, shown in self._made):
            self.__init__()  # type: ignore[misc]
        return self._mode

    def twin(self, tensor: Tensor) -> Tensor:
        """Give the one fake of a tensor."""
        real, twin = self._twins.get(id(tensor), (None, None))
        if real is not tensor or twin is None:
            twin = fake_of(self._mode, tensor)
            self._twins[id(tensor)] = tensor, twin
        return twin

    def note(self, fakes: list[Tensor]) -> None:
        """Keep how fakes look before a run."""
        known = {id(fake) for fake, _ in self._made}
        self._made += [(fake, _shown(fake)) for fake in fakes if id(fake) not in known]


def _shown(fake: Tensor) -> Any:
    """Give all that a program can see of a fake."""
    with torch._C.DisableTorchFunction():
        gradient = id(fake.grad) if fake.is_leaf else None  # torch warns where there can be none
        flags = fake.requires_grad, fake.is_leaf, fake.dtype, fake.device, gradient, id(fake._backward_hooks)
        own = {key: id(value) for key, value in fake.__dict__.items()}
        is_dense = fake.layout is torch.strided
        memory = (fake.stride(), fake.untyped_storage()._cdata) if is_dense else id(fake)
        return fake.shape, memory, flags, own


@contextmanager
def fake_twins(model: nn.Module, make: Callable[[Tensor], Tensor]) -> Iterator[dict[int, tuple[Tensor, str]]]:
    """Swap every tensor of ``model`` for its twin, which ``make`` gives; give where each hangs, by its identity.

    A tensor that hangs in two places (tied weights) has one twin and the first of its names.
    """
    places: dict[int, tuple[Tensor, str]] = {}
    swapped = []
    for prefix, module in list(model.named_modules()):
        for holder in (module._parameters, module._buffers, module.__dict__):
            for key, value in list(holder.items()):
                if isinstance(value, Tensor):
                    is_fake = isinstance(value, FakeTensor)  # an earlier run of the same capture left it
                    twin = value if is_fake else make(value)
                    swapped.append((holder, key, value))
                    holder[key] = twin
                    places.setdefault(id(twin), (twin, f"{prefix}.{key}" if prefix else key))
    try:
        yield places
    finally:
        for holder, key, value in swapped:
            holder[key] = value
