"""Random small models: the graph backend, the eager backend and plain PyTorch agree, or the model is refused."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import fxkd
from fxkd.errors import FxkdError
from tests.support.oracle import assert_same, run_with_hooks, seed_everything

WIDTH = 4
LAYERS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "batch_norm": lambda: nn.BatchNorm1d(WIDTH),
    "relu_": lambda: nn.ReLU(inplace=True),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout_": lambda: nn.Dropout(0.5, inplace=True),
    "counter": lambda: Counter(),
    "adds_": lambda: AddsInPlace(),
    "dict": lambda: GivesDict(),
    "same": lambda: nn.Identity(),
}


class Counter(nn.Module):
    """Counts its calls in a buffer, and scales by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x / self.count.clone()


class AddsInPlace(nn.Module):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((WIDTH,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.bias)


class GivesDict(nn.Module):
    """Gives a dict whose parts share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.inner(x)
        return {"whole": y, "parts": (y[:, :2], y[:, 2:])}


OPERATIONS: dict[str, Any] = {
    "mul_": lambda model, x, kept: x.mul_(1.5),
    "zero row": lambda model, x, kept: zero_row(x),
    "relu": lambda model, x, kept: x.relu(),
    "view": lambda model, x, kept: x.view(-1).view(x.shape[0], -1),
    "transpose": lambda model, x, kept: x.t().contiguous().t(),
    "slice": lambda model, x, kept: torch.cat([x[:, 2:], x[:, :2]], 1),
    "write to view": lambda model, x, kept: write_to_view(x),
    "add first": lambda model, x, kept: x + kept[0],
    "add last": lambda model, x, kept: x + kept[-1],
    "write to first": lambda model, x, kept: write_to(kept[0], x),
    "training": lambda model, x, kept: x * 2 if model.training else x + 1,
    "dropout": lambda model, x, kept: functional.dropout(x, 0.5, model.training),
    "noise": lambda model, x, kept: x + torch.randn_like(x) if model.training else x,
    "detach": lambda model, x, kept: x + x.detach(),
    "no_grad": lambda model, x, kept: without_gradients(x),
    "batch": lambda model, x, kept: x * x.shape[0],
    "branch": lambda model, x, kept: x * 3 if x.shape[0] > 3 else x - 1,
    "buffer": lambda model, x, kept: moved(model, x),
    "sort": lambda model, x, kept: x.sort(dim=1).values,
    "split": lambda model, x, kept: torch.stack(x.unbind(0)),
    "rows": lambda model, x, kept: torch.stack([row * index for index, row in enumerate(x, 1)]),
    "setitem": lambda model, x, kept: set_item(x),
    "out": lambda model, x, kept: torch.add(x, 1, out=torch.empty_like(x).detach()) if not x.requires_grad else x,
    "contiguous": lambda model, x, kept: x if x.t().is_contiguous() else x * 1.1,
    "expand": lambda model, x, kept: x + x.mean(0, keepdim=True).expand_as(x),
    "hook": lambda model, x, kept: hooked(x),
}


def zero_row(x: Tensor) -> Tensor:
    x[0].zero_()
    return x


def write_to_view(x: Tensor) -> Tensor:
    x.view(-1)[1:3].add_(1)
    return x


def write_to(kept: Tensor, x: Tensor) -> Tensor:
    kept.mul_(0.5)
    return x + 1


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.abs().amax() + 1
    return x / scale


def moved(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        model.average.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
    return x - model.average.clone()


def set_item(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = x[:, 1] * 2
    return y


def hooked(x: Tensor) -> Tensor:
    x = x * 1
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * 0.5)
    return x


class Program(nn.Module):
    """Runs layers and operations as a list says; a layer that is named again is the same module."""

    def __init__(self, steps: list[str], layers: dict[str, str], seed: int, nested: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.layers = nn.ModuleDict({name: LAYERS[kind]() for name, kind in layers.items()})
        self.inner = Program([step for step in steps if step in OPERATIONS][:2], {}, seed, False) if nested else None
        self.head = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("average", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Any:
        x = x * 1
        kept = [x]
        for step in self.steps:
            x = self.layers[step](x) if step in self.layers else OPERATIONS[step](self, x, kept)
            x = x["whole"] + 1 if isinstance(x, dict) else x
            kept.append(x)
        if self.inner is not None:
            x = self.inner(x)["out"]
        return {"out": self.head(x), "first": kept[min(1, len(kept) - 1)] * 1, "number": x.shape[0]}


@st.composite
def programs(draw: Any) -> tuple[list[str], dict[str, str], list[str], bool]:
    kinds = draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4))
    layers = {f"{kind}{index}": kind for index, kind in enumerate(kinds)}
    steps = draw(st.lists(st.sampled_from([*layers, *sorted(OPERATIONS)]), min_size=2, max_size=8))
    used = [name for name in layers if name in steps and layers[name] != "dict"]
    used += [f"{name}.inner" for name in layers if name in steps and layers[name] == "dict"]
    nested = draw(st.booleans())
    if not used:
        steps, used = [*steps, next(iter(layers))], [next(iter(layers))]
        used = [f"{used[0]}.inner" if layers[used[0]] == "dict" else used[0]]
    points = draw(st.lists(st.sampled_from(used), min_size=1, max_size=2, unique=True))
    return steps, layers, [f"layers.{point}" for point in points] + (["inner"] if nested else []), nested


def spec_of(points: list[str]) -> dict[str, Any]:
    recorders = {str(index): {"type": "ModuleOutputs", "source": point} for index, point in enumerate(points)}
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "distill_losses": {f"loss_{name}": nn.MSELoss() for name in recorders},
        "loss_forward_mappings": {
            f"loss_{name}": {
                "input": {"recorder": name, "from_student": True},
                "target": {"recorder": name, "from_student": False},
            }
            for name in recorders
        },
        "student_loss": False,
    }


def values_of_points(spec: dict[str, Any]) -> dict[str, Any]:
    """Let a point that gives a dict be read at its first tensor."""
    for mapping in spec["loss_forward_mappings"].values():
        for reference in mapping.values():
            recorder = spec["student_recorders"][reference["recorder"]]
            if recorder["source"] == "inner":
                reference["data_idx"] = "out"
    return spec


def step(call: Any, student: nn.Module, seed: int) -> Any:
    """Give all that one step computes, or the error that plain PyTorch raises."""
    seed_everything(seed)
    student.zero_grad()
    try:
        out = call()
        (out.loss + out.output["out"].square().sum()).backward()
    except FxkdError:
        raise
    except RuntimeError as error:
        return str(error)[:60]
    return {
        "loss": out.loss.detach(),
        "output": out.output,
        "gradients": {name: parameter.grad for name, parameter in student.named_parameters()},
        "buffers": {name: buffer.clone() for name, buffer in student.named_buffers()},
        "drawn": torch.rand(()),
    }


@pytest.mark.filterwarnings("ignore::fxkd.errors.SpecWarning")  # a model may have nothing to train
@settings(max_examples=10)
@given(programs(), st.booleans(), st.lists(st.integers(2, 5), min_size=2, max_size=3))
def test_random_models(program: Any, trains: bool, sizes: list[int]) -> None:
    steps, layers, points, nested = program
    make = [lambda seed=seed: Program(steps, layers, seed, nested) for seed in (0, 1)]
    student, own, teacher, own_teacher = make[0](), make[0](), make[1](), make[1]()
    spec = values_of_points(spec_of(points))
    student.train(trains), own.train(trains)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(size, WIDTH, generator=generator) for size in sizes]
    losses = copy.deepcopy(spec["distill_losses"])
    try:
        distiller = fxkd.prepare(student, teacher, spec, example_inputs=batches[0])
    except FxkdError as refused:
        event(f"refused: {str(refused)[:70]}")
        return
    for seed, x in enumerate(batches):
        wanted = step(lambda x=x: run_with_hooks(own, own_teacher, spec, (x,), {}, {}, losses), own, seed)
        if isinstance(wanted, str):
            event(f"plain PyTorch raises: {wanted}")
            return
        try:
            found = step(lambda x=x: distiller(x), student, seed)
        except FxkdError as refused:
            event(f"refused later: {str(refused)[:70]}")
            return
        assert_same(wanted, found, 1e-4, atol=1e-6)
        event("compared")
