"""Traps: modules that are shared, hidden, wrapped, watched or changed, and outputs of many forms."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.zoo.trap import WIDTH, Net, trap


class WritesAfter(Net):
    def between(self, x: Tensor) -> Tensor:
        x.mul_(2)
        x += 1
        x[:, 0] = 0.5
        return x


class CalledTwice(Net):
    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(self.first(x).relu()) + self.first(x))


class TwoNames(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.first
        self.last.weight = self.first.weight

    def between(self, x: Tensor) -> Tensor:
        return self.again(x).relu()


class Held:
    """Holds tensors and is no module."""

    def __init__(self) -> None:
        self.scale = torch.linspace(0.5, 1.5, WIDTH)
        self.inside = {"shift": [torch.ones(WIDTH)]}


class HeldOutside(Net):
    def __init__(self) -> None:
        super().__init__()
        self.held = Held()

    def between(self, x: Tensor) -> Tensor:
        return x * self.held.scale + self.held.inside["shift"][0]


class PlainList(Net):
    """Modules that nobody sees: they are in no ``state_dict``."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(WIDTH, WIDTH), nn.Tanh()]

    def between(self, x: Tensor) -> Tensor:
        for module in self.hidden:
            x = module(x)
        return x


class MadeInForward(Net):
    def between(self, x: Tensor) -> Tensor:
        return nn.Softmax(dim=-1)(x) + nn.LayerNorm(x.shape[-1])(x)


class Collects(nn.Module):
    def forward(self, x: Tensor, seen: list[Tensor]) -> Tensor:
        seen.append(x * 2)
        return x.tanh()


class ListFilledByLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.collect = Collects()

    def between(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        return self.collect(x, seen) + seen[0]


class Leaves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.left = x * 3
        return x.tanh()


class AttributeLeftByLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.leave = Leaves()

    def between(self, x: Tensor) -> Tensor:
        return self.leave(x) + self.leave.left


class Hooked(Net):
    """Hooks of the user's change what a layer takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.middle[0].register_forward_hook(lambda module, args, output: output * 2)
        self.middle.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        self.first.register_full_backward_hook(lambda module, grads, given: (grads[0],))

    def between(self, x: Tensor) -> Tensor:
        return self.middle(x)


class HookedGradient(Net):
    def between(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * 3)
        return x.relu()


class CompiledInPlace(Net):
    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.middle.compile(backend="eager")

    def between(self, x: Tensor) -> Tensor:
        return self.middle(x)


class Scripted(Net):
    def __init__(self) -> None:
        super().__init__()
        self.middle = torch.jit.trace(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), torch.zeros(2, WIDTH))

    def between(self, x: Tensor) -> Tensor:
        return self.middle(x)


class Checkpointed(Net):
    reentrant = False

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3))

    def between(self, x: Tensor) -> Tensor:
        return checkpoint(self.middle, x, use_reentrant=self.reentrant)


class CheckpointedReentrant(Checkpointed):
    reentrant = True


class Autocast(Net):
    def between(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.first(x)
        return x.float().relu()


class WithoutGradient(Net):
    def between(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.first(x)
        return x * target + x.detach()


class Reversed(torch.autograd.Function):
    """Turns gradients round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class OwnBackward(Net):
    def between(self, x: Tensor) -> Tensor:
        return Reversed.apply(x)


class Parametrized(Net):
    def __init__(self) -> None:
        super().__init__()
        self.middle = parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))
        self.weighed = parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def between(self, x: Tensor) -> Tensor:
        return self.weighed(self.middle(x))


class Recurrent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, 2, batch_first=True, dropout=0.2)

    def between(self, x: Tensor) -> Tensor:
        steps, (hidden, _) = self.lstm(x[:, None].expand(-1, 3, -1))
        return steps[:, -1] + hidden[0]


class OtherWeights(Net):
    def between(self, x: Tensor) -> Tensor:
        weights = {"weight": self.first.weight * 2, "bias": self.first.bias + 1}
        return torch.func.functional_call(self.last, weights, (x,))


class Mapped(Net):
    def between(self, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: row * row.sum())(x)


class GivesDict(Net):
    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return OrderedDict(hidden=[x, {"again": x}], logits=self.last(x), nothing=None, count=3)


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None


class GivesDataclass(Net):
    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return Output(self.last(x), (x, x.relu()))


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


class GivesNamedTuple(Net):
    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return Pair(self.last(x), x)


TAKEN = {name: {"type": "ModuleOutputs", "source": name} for name in ("first", "middle.0")}

MODELS = [
    *map(trap, (WritesAfter, CalledTwice, TwoNames, HeldOutside, PlainList, MadeInForward, ListFilledByLayer)),
    *map(trap, (AttributeLeftByLayer, Hooked, HookedGradient, CompiledInPlace, Autocast, WithoutGradient)),
    *map(trap, (OwnBackward, Parametrized, Recurrent, OtherWeights)),
    trap(Mapped, expected="refused", reason="tensors without values: .*BatchedTensor.*name the function"),
    trap(Scripted, expected="refused", reason="'middle' is TorchScript"),
    *map(trap, (GivesDict, GivesDataclass, GivesNamedTuple)),
    trap(Checkpointed, recorders=TAKEN),
    trap(CheckpointedReentrant, recorders=TAKEN, expected="refused", reason="checkpoint without it"),
]
