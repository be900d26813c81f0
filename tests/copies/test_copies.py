"""Copies of a distiller: by deepcopy, pickle and torch.save; each trains like the original and leaves it alone."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import fxkd
from tests.support.oracle import assert_same, seed_everything

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class Net(nn.Module):
    """A norm, an in-place ReLU, a dropout."""

    def __init__(self, seed: int = 0, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
        self.dropout, self.head = nn.Dropout(0.4), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(x)))


class Learned(nn.Module):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one * self.scale - other).square().mean()


def spec() -> dict[str, Any]:
    recorders = {
        "feat": {"type": "ModuleOutputs", "source": "body.1"},
        "fc": {"type": "ModuleOutputs", "source": "head"},
    }
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {"wide": {"type": "LinearConnector", "in_features": 6, "out_features": 8}},
        "distill_losses": {"loss_feat": {"type": "L2Loss"}, "loss_fc": Learned()},
        "loss_forward_mappings": {
            "loss_feat": {
                "s_feature": {"recorder": "feat", "from_student": True, "connector": "wide"},
                "t_feature": {"recorder": "feat", "from_student": False},
            },
            "loss_fc": {
                "one": {"recorder": "fc", "from_student": True},
                "other": {"recorder": "fc", "from_student": False},
            },
        },
    }


def batch(size: int = 5) -> Tensor:
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(size))


def prepared(backend: str = "graph", **options: Any) -> fxkd.Distiller:
    torch.manual_seed(3)
    example = batch() if backend == "graph" else None
    return fxkd.prepare(Net(), Net(1, 8), spec(), example_inputs=example, backend=backend, **options)


def step(distiller: Callable[..., Any], parameters: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Run one step; give the loss, all gradients, and the grad mode after it."""
    seed_everything(1)
    for parameter in parameters.values():
        parameter.grad = None
    out = distiller(batch())
    (out.loss + out.output.sum()).backward()
    return {
        "loss": out.loss.detach(),
        "output": out.output.detach(),
        "gradients": {name: parameter.grad.clone() for name, parameter in parameters.items()},
        "grad mode": torch.is_grad_enabled(),
    }


def stepped(distiller: fxkd.Distiller) -> dict[str, Any]:
    return step(distiller, dict(distiller.named_parameters()))


def by_torch(distiller: fxkd.Distiller) -> fxkd.Distiller:
    file = io.BytesIO()
    torch.save(distiller, file)
    file.seek(0)
    copied: fxkd.Distiller = torch.load(file, weights_only=False)
    return copied


COPIES: dict[str, Callable[[fxkd.Distiller], fxkd.Distiller]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda distiller: pickle.loads(pickle.dumps(distiller)),
    "torch.save": by_torch,
}
EVERY = pytest.mark.parametrize("copied", COPIES.values(), ids=list(COPIES))


@EVERY
@BACKENDS
@pytest.mark.parametrize("called", [True, False])
def test_a_copy_steps_like_the_original(copied: Any, backend: str, called: bool) -> None:
    distiller, twin = prepared(backend), prepared(backend)
    if called:
        assert_same(stepped(distiller), stepped(twin))
    again = copied(distiller)
    assert again.programs == []
    assert again.student.training
    wanted = stepped(twin)
    assert_same(wanted, stepped(again))
    assert not any(p.requires_grad or m.training for m in again.teachers.values() for p in m.parameters())
    assert_same(wanted, stepped(distiller))


@EVERY
def test_a_copy_captures_the_same_graph(copied: Any) -> None:
    distiller = prepared()
    again = copied(distiller)
    again(batch())
    assert str(again.graph_module.graph) == str(distiller.graph_module.graph)
    assert again.graph_module.code == distiller.graph_module.code
    assert again.graph_module.student is again.student
    assert again.spec.distill_losses.keys() == distiller.spec.distill_losses.keys()


@EVERY
@BACKENDS
def test_a_copy_and_its_original_go_their_own_ways(copied: Any, backend: str) -> None:
    distiller = prepared(backend)
    again = copied(distiller)
    shared = {id(tensor) for tensor in [*distiller.parameters(), *distiller.buffers()]}
    assert not shared & {id(tensor) for tensor in [*again.parameters(), *again.buffers()]}
    kept = {name: value.clone() for name, value in distiller.state_dict().items()}
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    for _ in range(2):
        stepped(again)
        optimizer.step()
    assert_same(kept, dict(distiller.state_dict()))
    assert all(parameter.grad is None for parameter in distiller.parameters())
    assert all(not torch.equal(kept[name], value) for name, value in again.named_parameters())


@EVERY
def test_a_copy_keeps_modes_and_frozen_parts(copied: Any) -> None:
    distiller = prepared()
    distiller.student.body.eval()
    distiller.student.head.requires_grad_(False)
    again = copied(distiller)
    flags = [(module.training, type(module)) for module in distiller.modules()]
    assert [(module.training, type(module)) for module in again.modules()] == flags
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in distiller.parameters()]


@EVERY
@pytest.mark.parametrize("options", [{"backend": "aot_eager"}, {"backend": "aot_eager", "fullgraph": True}])
def test_a_compiled_step_is_copied(copied: Any, options: dict[str, Any]) -> None:
    distiller, twin = prepared(compile=options), prepared()
    distiller(batch()), twin(batch())
    again = copied(distiller)
    assert again.options.compile == options
    assert_same(stepped(twin), stepped(again), 1e-5, atol=1e-7)


@EVERY
def test_a_distiller_compiled_in_place_is_copied(copied: Any) -> None:
    """The compiled call belongs to the original: a copy that kept it would run the original's weights."""
    distiller = prepared()
    distiller.compile(backend="aot_eager")
    distiller(batch())
    again = copied(distiller)
    with torch.no_grad():
        again.student.head.weight.zero_(), again.student.head.bias.zero_()
    assert not again(batch()).output.any()
    assert distiller(batch()).output.any()


def test_deepcopy_shares_the_teacher_and_pickle_takes_it_along() -> None:
    distiller = prepared()
    teacher = distiller.teachers["teacher"]
    assert copy.deepcopy(distiller).teachers["teacher"] is teacher
    loaded = by_torch(distiller).teachers["teacher"]
    assert loaded is not teacher
    assert_same(dict(teacher.state_dict()), dict(loaded.state_dict()))


@BACKENDS
def test_a_teacher_that_shares_weights_with_the_student_is_copied_with_it(backend: str) -> None:
    """Else the copy's teacher would go on to learn from the original's student."""
    student, teacher = Net(0, 8), Net(1, 8)
    teacher.head = student.head
    given = spec()
    given["connectors"]["wide"]["in_features"] = 8
    distiller = fxkd.prepare(student, teacher, given, backend=backend)
    again = copy.deepcopy(distiller)
    assert again.teachers["teacher"].head is again.student.head
    assert distiller.teachers["teacher"].head is distiller.student.head is not again.student.head
    assert again.student.head.weight.requires_grad
    assert not again.teachers["teacher"].body[0].weight.requires_grad
    assert_same(stepped(distiller), stepped(again))


@BACKENDS
def test_an_average_of_the_weights(backend: str) -> None:
    """``AveragedModel`` copies the distiller, and runs as one."""
    distiller = prepared(backend)
    average = AveragedModel(distiller)
    assert average.module.teachers["teacher"] is distiller.teachers["teacher"]
    start = distiller.student.head.weight.detach().clone()
    average.update_parameters(distiller)
    with torch.no_grad():
        for parameter in distiller.parameters():
            parameter.add_(2)
    average.update_parameters(distiller)
    assert_same(start + 1, average.module.student.head.weight.detach())
    average.eval(), distiller.eval()
    body = average.module.student.body(batch())
    wanted = nn.functional.linear(body, start + 1, average.module.student.head.bias)
    assert_same(wanted, average(batch()).output)
    assert not torch.allclose(wanted, distiller(batch()).output)


def parts(distiller: fxkd.Distiller) -> list[tuple[nn.Module, float]]:
    return [(distiller.student, 0.1), (distiller.connectors, 1.0)]


@BACKENDS
def test_an_optimizer_copied_with_its_distiller_trains_the_copy(backend: str) -> None:
    distiller = prepared(backend)
    groups = [{"params": list(part.parameters()), "lr": lr} for part, lr in parts(distiller)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    stepped(distiller)
    optimizer.step()
    again, of_again = copy.deepcopy((distiller, optimizer))
    assert [group["lr"] for group in of_again.param_groups] == [0.1, 1.0]
    held = {id(parameter) for group in of_again.param_groups for parameter in group["params"]}
    own = [*again.student.parameters(), *again.connectors.parameters()]
    assert held == set(map(id, own))
    kept = {name: value.clone() for name, value in distiller.state_dict().items()}
    stepped(again)
    of_again.step()
    assert_same(kept, dict(distiller.state_dict()))
    stepped(distiller)
    optimizer.step()
    assert_same(dict(distiller.state_dict()), dict(again.state_dict()))
