"""What people write who distil with hooks, and the one spec and the small models of the tests that compare with it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

import fxkd
from tests.support.oracle import assert_same, seed_everything

Values = tuple[Tensor, Tensor]  # what a point gave, and what the model gave
ByHand = Callable[[Any, Tensor], Values]


class Net(nn.Module):
    """Two layers with something peculiar between them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))

    def between(self, x: Tensor) -> Tensor:
        return x.relu()


def plain(model: Net, x: Tensor) -> Values:
    """Run a ``Net`` by hand; the point is its first layer."""
    feature = functional.linear(x, model.first.weight, model.first.bias)
    return feature, functional.linear(feature.relu(), model.last.weight, model.last.bias)


def batch(size: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(size, 8, generator=torch.Generator().manual_seed(seed))


def every_output(module: nn.Module) -> tuple[list[Any], RemovableHandle]:
    """Hook a module as a recorder does: each call's output goes to the end of a buffer."""
    buffer: list[Any] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        buffer.append(output)

    return buffer, module.register_forward_hook(hook)


def last_output(module: nn.Module) -> dict[str, Any]:
    """Hook a module as most scripts do: the last call's output lies in a dict."""
    features: dict[str, Any] = {}

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        features["point"] = output

    module.register_forward_hook(hook)
    return features


def spec_of(source: str = "first", teacher_source: str | None = None, **reference: Any) -> dict[str, Any]:
    """Compare one point of the student with one of the teacher by their mean squared distance."""
    return {
        "student_recorders": {"point": {"type": "ModuleOutputs", "source": source}},
        "teacher_recorders": {"point": {"type": "ModuleOutputs", "source": teacher_source or source}},
        "distill_losses": {"loss_point": nn.MSELoss()},
        "loss_forward_mappings": {
            "loss_point": {
                "input": {"recorder": "point", "from_student": True, **reference},
                "target": {"recorder": "point", "from_student": False, **reference},
            }
        },
    }


def assert_right(
    distiller: fxkd.Distiller, by_hand: ByHand, *batches: Tensor, rtol: float = 1e-6, atol: float = 0.0
) -> None:
    """Compare loss, output, gradients and buffers with what ``by_hand`` computes on copies, batch after batch."""
    student, teacher = copy.deepcopy(distiller.student), copy.deepcopy(distiller.teachers["teacher"])
    for seed, x in enumerate(batches or (batch(3), batch(5), batch(3, seed=1))):
        seed_everything(seed)
        with torch.no_grad():
            target, _ = by_hand(teacher, x)
        feature, output = by_hand(student, x)
        loss = functional.mse_loss(feature, target)
        seed_everything(seed)
        out = distiller(x)
        assert_same((loss, output), (out.loss, out.output), rtol, atol=atol)
        wanted = gradients(student, loss + output.square().mean())
        found = gradients(distiller.student, out.loss + out.output.square().mean())
        assert any(value is not None for value in wanted.values())
        assert_same(wanted, found, rtol, atol=atol)
        assert_same(dict(student.named_buffers()), dict(distiller.student.named_buffers()), rtol, atol=atol)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    """Call backward; give the gradient of each parameter."""
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
