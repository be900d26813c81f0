"""What a model of the zoo is: how it is built, what it is called with, and what is expected of its capture."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positionals and keywords of one call
RIGHT, REFUSED = "right", "refused"
MODES = ("train", "eval")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that people have.

    Args:
        name: Its name, by which it is asked for.
        family: The heading under which the table lists it.
        build: Makes it; every call gives equal weights.
        inputs: Batch size -> the arguments of one call; the model is captured on a batch of two.
        further: Name -> another call, which the captured model must answer too.
        modes: The modes that are compared.
        expected: "right", or "refused": at least one of its calls.
        reason: A regular expression of the message of each refusal that is expected.
        is_warm: Whether it is called once before, as in eval mode it keeps what it makes at its first call.
        recorders: What to record; by default what ``points.py`` chooses by its rule.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Call]
    further: Mapping[str, Callable[[], Call]] = field(default_factory=dict)
    modes: tuple[str, ...] = MODES
    expected: str = RIGHT
    reason: str = ""
    recorders: Mapping[str, Any] | None = None
    is_warm: bool = False

    def built(self, mode: str) -> nn.Module:
        """Build it in a mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().train(mode == "train")
            if self.is_warm and mode == "eval":
                args, kwargs = self.inputs(2)
                with torch.no_grad():
                    model(*args, **kwargs)
            return model


def images(batch: int, size: int, *, channels: int = 3, seed: int = 1) -> Tensor:
    """Draw images (N, channels, size, size)."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a size that matters: layers that begin at nothing would hide what is wrong behind them.

    A matrix or kernel is drawn anew so that it keeps the size of what it is given; scales and offsets are moved.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.dim() > 1:
                parameter.copy_(noise / math.sqrt(max(1, parameter[0].numel())))
            else:
                parameter.add_(0.2 * noise)
    return model
