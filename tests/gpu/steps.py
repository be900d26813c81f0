"""Two small networks, what is distilled between them, and a training that writes down what it sees."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxkd
from tests.support.cases import AT, KL, L2, Spec, compare, conv, deliver_module, modules, spec
from tests.support.oracle import assert_same, snapshot

CLASSES = 5
EXAMPLES = 8
OVERFLOWS = 2  # the step whose gradients are made infinite where a scaler is to notice


class Net(nn.Module):
    """Images (N, 3, 16, 16) to a loss and logits; nothing is drawn, and what is recorded is written to afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.body, self.body_norm = nn.Conv2d(8, width, 3, stride=2, bias=False), nn.BatchNorm2d(width)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(width, CLASSES)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x = self.relu(self.norm(self.stem(images)))
        x = self.relu(self.body_norm(self.body(x)))
        places = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        logits = self.fc((x * (1 + places / x.shape[-1])).mean((2, 3)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


POINTS = modules(norm="body_norm", relu="relu", logits="fc")
LOSSES = {
    "loss_norm": compare(L2, "norm", connector="grow"),
    "loss_relu": compare(AT, "relu", record_idx=1),
    "loss_logits": compare(KL, "logits"),
}
SPECS: dict[str, Spec] = {
    "records": spec(POINTS, LOSSES, connectors={"grow": conv(8, 12)}),
    "delivery": spec(POINTS, LOSSES, connectors={"grow": conv(8, 12)}, deliveries={"stem": deliver_module("stem")}),
}


def batch(device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw images and labels on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(EXAMPLES, 3, 16, 16, generator=generator)
    return images.to(device), torch.randint(CLASSES, (EXAMPLES,), generator=generator).to(device)


def prepared(device: torch.device, name: str, **options: Any) -> fxkd.Distiller:
    """Prepare a distiller on ``device``; every call gives equal weights."""
    torch.manual_seed(0)
    student, teacher = Net(8), Net(12)
    distiller = fxkd.prepare(
        student.to(device),
        teacher.to(device),
        SPECS[name],
        example_inputs=None if options.get("backend") == "eager" else batch(device, seed=9),
        **options,
    )
    torch.manual_seed(1)
    for parameter in distiller.connectors.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape))
    return distiller.to(device)


def compiler(device: torch.device, **options: Any) -> dict[str, Any]:
    """Give options of ``torch.compile``: its default compiler, but on the CPU one that is quick."""
    return options if device.type == "cuda" else {"backend": "aot_eager", **options}


@dataclass(frozen=True, slots=True)
class Precision:
    """How a training computes.

    Args:
        kind: The type of autocast; None is float32 throughout.
        is_scaled: Whether a ``GradScaler`` scales the loss.
        tolerance: Of two trainings, relative to the largest value.
    """

    kind: torch.dtype | None
    is_scaled: bool
    tolerance: float


PRECISIONS = {
    "float32": Precision(None, False, 1e-3),
    "bfloat16": Precision(torch.bfloat16, False, 5e-2),
    "float16": Precision(torch.float16, True, 1e-2),
}


@dataclass(slots=True)
class Seen:
    """What a training gave: for each step losses and gradients, and the state of the scaler after it."""

    losses: list[dict[str, Tensor]] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    scaler: list[dict[str, Any]] = field(default_factory=list)
    is_skipped: list[bool] = field(default_factory=list)


def train(distiller: fxkd.Distiller, device: torch.device, precision: Precision, steps: int = 5) -> Seen:
    """Train for some steps; with a scaler one step overflows, and must be left out."""
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**8, growth_interval=2, enabled=precision.is_scaled)
    seen = Seen()
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autocast(device.type, precision.kind, enabled=precision.kind is not None):
            out = distiller(*batch(device, step))
        overflows = precision.is_scaled and step == OVERFLOWS
        scaler.scale(out.loss * (math.inf if overflows else 1.0)).backward()
        scaler.unscale_(optimizer)
        before = snapshot(list(distiller.parameters()))
        scaler.step(optimizer)
        scaler.update()
        seen.is_skipped.append(all(map(torch.equal, before, distiller.parameters())))
        seen.losses.append(snapshot({**out.losses, "own": out.student_loss, "loss": out.loss}))
        seen.scaler.append(scaler.state_dict())
        if not overflows:
            seen.gradients.append(gradients(distiller))
    return seen


def gradients(distiller: fxkd.Distiller) -> dict[str, Tensor]:
    """Copy the gradients that there are: what only a delivered value replaces has none."""
    return {name: p.grad.detach().clone() for name, p in distiller.named_parameters() if p.grad is not None}


def assert_near(wanted: Seen, found: Seen, tolerance: float) -> None:
    """Compare two trainings step by step; gradients relative to the largest of their step."""
    for step, (one, other) in enumerate(zip(wanted.losses, found.losses, strict=True)):
        assert_same(numbers(one), numbers(other), tolerance, path=f"losses of step {step}")
    for step, (one, other) in enumerate(zip(wanted.gradients, found.gradients, strict=True)):
        largest = max(float(gradient.abs().max()) for gradient in one.values())
        assert 0 < largest < math.inf
        assert_same(numbers(one), numbers(other), 0.0, atol=tolerance * largest, path=f"gradients of step {step}")
    assert wanted.scaler == found.scaler
    assert wanted.is_skipped == found.is_skipped


def numbers(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give values in float64: which type a compiler leaves a result in under autocast is another matter."""
    return {name: value.double().cpu() for name, value in values.items()}
