"""What is asked of every loss of fxkd alike: schedules, half precision, layouts, empty batches, compiling."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd import losses
from fxkd.registry import losses as registry
from tests.golden import cosine, sine

# Six samples, and no other size of six: sizes that are equal are taken for one by the compiler.
MAPS = sine(6, 4, 3, 5), cosine(6, 4, 3, 5)
LOGITS = 2 * sine(6, 7), 2 * cosine(6, 7)
LABELS = torch.tensor([0, 5, 2, 3, -100, 6])
UNITS = tuple(nn.functional.normalize(side, dim=1) for side in (sine(6, 8), cosine(6, 8)))
CONTRAST = torch.arange(24).reshape(6, 4).remainder(10)
BOXES = torch.tensor([[[0.0, 0.0, 7.0, 9.0], [20.0, 10.0, 50.0, 30.0], [0.0, 0.0, 0.0, 0.0]]]).repeat(6, 1, 1)
SIZES = torch.tensor([[30, 50]]).repeat(6, 1)


def fbkd(x: Tensor, *channels: Tensor) -> tuple[Tensor, ...]:
    return x.abs().mean(1, keepdim=True), x.mean((2, 3), keepdim=True), *channels, x.sum(1, keepdim=True), x.flip(1), x


@dataclass(frozen=True)
class Case:
    """A loss, and what it is called with."""

    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    largest: float = 500.0  # what the inputs are multiplied by where sums of half precision would overflow


CASES = {
    "ABLoss": Case(MAPS, {"margin": 0.5}),
    "ATLoss": Case(MAPS),
    "ActivationLoss": Case(MAPS[:1], {"norm_type": "norm"}),
    "AngleWiseRKD": Case(LOGITS),
    "CRDLoss": Case(
        (*UNITS, (CONTRAST[:, 0], CONTRAST)),
        {"temperature": 0.5, "neg_num": 3, "sample_n": 10, "dim_out": 8, "loss_weight": 0.5, "compat": False},
        largest=1.0,
    ),
    "ChannelWiseDivergence": Case(MAPS, {"tau": 4}),
    "CrossEntropyLoss": Case(LOGITS),
    "DISTLoss": Case(LOGITS, {"tau": 2, "intra_loss_weight": 2, "teacher_detach": False}),
    "DKDLoss": Case((*LOGITS, LABELS), {"tau": 2, "beta": 8}),
    "DistanceWiseRKD": Case(MAPS),
    "FBKDLoss": Case((fbkd(MAPS[0], MAPS[0].amax((2, 3))), fbkd(MAPS[1]))),
    "FGDLoss": Case(
        (MAPS[0][:, :2], MAPS[1], BOXES, SIZES), {"student_channels": 2, "teacher_channels": 4, "alpha_fgd": 0.1}
    ),
    "FTLoss": Case(MAPS),
    "InformationEntropyLoss": Case(LOGITS[1:]),
    "KDSoftCELoss": Case((*LOGITS, LOGITS[0][:, 0].abs()), {"tau": 3}),
    "KLDivergence": Case(LOGITS, {"tau": 3, "teacher_detach": False}),
    "L1Loss": Case(MAPS, {"reduction": "sum"}),
    "L2Loss": Case(MAPS, {"mult": 2, "div_element": True}),
    "MGDLoss": Case(MAPS),
    "OFDLoss": Case(MAPS),
    "ObjectnessScaledLoss": Case((2 * sine(6, 14, 3, 5), 2 * cosine(6, 14, 3, 5)), {"num_anchors": 2}),
    "OnehotLikeLoss": Case(LOGITS[1:]),
    "PKDLoss": Case((MAPS, (MAPS[1], MAPS[1][:, :, :2, :3]))),
    "WSLD": Case((*LOGITS, LABELS), {"tau": 2, "num_classes": 7}),
}
SIZES_OF = {  # options that say how large something is, or how many: no schedule moves them
    *("neg_num", "sample_n", "dim_out", "num_classes", "num_anchors", "neighbourhood"),
    *("student_channels", "teacher_channels"),
}
every_loss = pytest.mark.parametrize("name", CASES)
Run = Callable[..., Tensor]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return losses.build({"type": name, **CASES[name].options}).double()


def changed(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return pytree.tree_map_only(Tensor, change, inputs)


def run(loss: nn.Module, inputs: Any, call: Run | None = None) -> list[Tensor]:
    """Give the value and the gradients of all inputs; the state of the loss stays as it is."""
    state = copy.deepcopy(loss.state_dict())
    leaves, form = pytree.tree_flatten(inputs)
    leaves = [leaf.detach().requires_grad_(leaf.is_floating_point()) for leaf in leaves]
    value = (loss if call is None else call)(*pytree.tree_unflatten(leaves, form))
    learns = [leaf for leaf in leaves if leaf.requires_grad]
    gradients = torch.autograd.grad(value.sum(), learns, materialize_grads=True)
    loss.load_state_dict(state)
    return [value.detach(), *gradients]


def scheduled(loss: nn.Module) -> list[str]:
    """Put a 0-d buffer in the place of every number; tell which."""
    numbers = [name for name, value in vars(loss).items() if type(value) in (int, float) and name not in SIZES_OF]
    for name in numbers:
        value = torch.tensor(float(getattr(loss, name)), dtype=torch.float64)
        delattr(loss, name)
        loss.register_buffer(name, value)
    return numbers


# Compiling takes seconds each: these stand for the others, of which six are compiled in files of their own.
COMPILED = (
    "ABLoss",
    "ActivationLoss",
    "CRDLoss",
    "CrossEntropyLoss",
    "DISTLoss",
    "DistanceWiseRKD",
    "InformationEntropyLoss",
    "KDSoftCELoss",
    "OFDLoss",
    "WSLD",
)


def test_no_loss_is_left_out() -> None:
    own = [name for name in registry.names() if registry.get(name).__module__.startswith("fxkd.losses.")]
    assert own == sorted({*CASES, "FeatureDistillationHead"})  # the head is what its losses are


@every_loss
def test_what_a_reader_is_told(name: str) -> None:
    loss = registry.get(name)
    assert loss.kind in ("response", "feature", "relation", "data-free")
    told = str(loss.__doc__)
    for part in ("loss = ", "Args:", "Shape:", "Raises:", ">>> "):
        assert part in told
    assert "arXiv" in told or "openreview" in told


@every_loss
def test_numbers_can_be_buffers(name: str) -> None:
    loss = build(name)
    expected = run(loss, CASES[name].inputs)
    assert expected[0].isfinite().all()
    assert any(gradient.any() for gradient in expected[1:])
    assert {"loss_weight", "alpha_mgd", "alpha_fgd"} & set(scheduled(loss))
    torch.testing.assert_close(run(loss, CASES[name].inputs), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in COMPILED else pytest.mark.slow) for name in sorted(CASES)]
)
def test_one_graph_serves_any_batch_and_any_step_of_a_schedule(name: str, fresh_dynamo: None) -> None:
    loss, plain = build(name), build(name)
    numbers = scheduled(loss)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples, factor in ((6, 1.0), (2, 1.25)):
        for number in numbers:
            setattr(plain, number, factor * getattr(plain, number))
            getattr(loss, number).mul_(factor)
        batch = changed(CASES[name].inputs, lambda value: value[:samples].clone())  # noqa: B023
        with torch._dynamo.config.patch(error_on_recompile=True):
            torch.testing.assert_close(run(loss, batch, compiled), run(plain, batch))


@every_loss
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_gives_float32(name: str, dtype: torch.dtype, tolerance: float) -> None:
    loss = build(name)
    (expected, *_), loss = run(loss, CASES[name].inputs), loss.float()
    half = changed(CASES[name].inputs, lambda value: value.to(dtype) if value.is_floating_point() else value)
    value, *gradients = run(loss, half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=tolerance, atol=0.01)
    large = changed(half, lambda value: CASES[name].largest * value if value.is_floating_point() else value)
    for result in [*gradients, run(loss, large)[0]]:
        assert result.isfinite().all()


@every_loss
def test_an_empty_batch_costs_nothing(name: str) -> None:
    for result in run(build(name), changed(CASES[name].inputs, lambda value: value[:0])):
        assert not result.any()


@every_loss
def test_layout_does_not_count(name: str) -> None:
    loss = build(name)
    expected = run(loss, CASES[name].inputs)
    for relaid in (scattered, channels_last):
        inputs = changed(CASES[name].inputs, relaid)
        torch.testing.assert_close(run(loss, inputs), expected)


def scattered(value: Tensor) -> Tensor:
    """Lay the same numbers out backwards; a vector with gaps."""
    if value.ndim == 1:
        return torch.stack([value, value], dim=1)[:, 0]
    axes = tuple(reversed(range(value.ndim)))
    return value.permute(axes).contiguous().permute(axes)


def channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
