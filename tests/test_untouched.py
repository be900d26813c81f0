"""A student is after training what it would be without distillation: the same object, nothing added, nothing left."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxkd
from tests.support.oracle import assert_same, seed_everything

STEPS = 20
OPTIONS: dict[str, dict[str, Any]] = {
    "graph": {"backend": "graph"},
    "compiled": {"backend": "graph", "compile": {"backend": "aot_eager", "fullgraph": True}},
    "eager": {"backend": "eager"},
}
EVERY = pytest.mark.parametrize("name", OPTIONS)


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class ResNet(nn.Module):
    """Small, with all that a step may move: statistics of norms, draws of dropout."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.Sequential(Block(width), Block(width))
        self.dropout, self.fc = nn.Dropout(0.3), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.stem(x))
        return self.fc(self.dropout(x.mean((2, 3))))


def spec_of(weight: float) -> dict[str, Any]:
    """Distil a map inside a block, another that an addition overwrites, and the logits; learn from labels too."""
    losses = {"layers.0.bn1": "L2Loss", "layers.1.bn2": "L2Loss", "fc": "KLDivergence"}
    return {
        "pairs": [
            {"student": point, "teacher": point, "loss": {"type": kind, "loss_weight": weight}}
            for point, kind in losses.items()
        ],
        "inputs": ["labels"],
        "student_loss": {
            "type": "CrossEntropyLoss",
            "args": {"input": "from_output", "target": {"from_input": "labels"}},
        },
    }


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 6, 6, generator=generator), torch.randint(5, (4,), generator=generator))
        for _ in range(STEPS)
    ]


def prepared(student: nn.Module, weight: float = 1.0, **options: Any) -> fxkd.Distiller:
    example = None if options["backend"] == "eager" else {"x": batches()[0][0], "labels": batches()[0][1]}
    return fxkd.prepare(student, ResNet(1), spec_of(weight), example_inputs=example, **options)


def train(call: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Train ``model`` on the loss that ``call`` gives for images and labels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for seed, (images, labels) in enumerate(batches()):
        seed_everything(seed)
        optimizer.zero_grad()
        call(images, labels).backward()
        optimizer.step()
    return optimizer


def learn(student: nn.Module) -> torch.optim.Optimizer:
    return train(lambda x, labels: nn.functional.cross_entropy(student(x), labels), student)


def distil(distiller: fxkd.Distiller) -> torch.optim.Optimizer:
    return train(lambda x, labels: distiller(x, labels=labels).loss, distiller.student)


@cache
def trained(name: str, weight: float = 1.0) -> tuple[ResNet, dict[str, Any], Tensor]:
    """Give a student after its training, the optimizer's state, and what the generator gives next."""
    student = ResNet()
    optimizer = learn(student) if name == "plain" else distil(prepared(student, weight, **OPTIONS[name]))
    return student, optimizer.state_dict(), torch.rand(1)


def seen(model: nn.Module) -> dict[str, Any]:
    """List all that hangs on the modules: names, kinds and flags, hooks too; values of tensors left out."""
    return {
        path: {
            "class": type(module),
            "attributes": {key: seen_value(value) for key, value in module.__dict__.items()},
            "parameters": {key: seen_value(value) for key, value in module._parameters.items()},
            "buffers": {key: seen_value(value) for key, value in module._buffers.items()},
        }
        for path, module in model.named_modules()
    }


def seen_value(value: Any) -> Any:
    if isinstance(value, Tensor):
        return type(value), id(value), value.dtype, tuple(value.shape), value.requires_grad, hooks_of(value)
    if isinstance(value, dict):
        return type(value), list(value)
    return value


def hooks_of(tensor: Tensor) -> int:
    return len(tensor._backward_hooks or ()) + len(getattr(tensor, "_post_accumulate_grad_hooks", None) or ())


@EVERY
def test_nothing_is_added_and_nothing_stays(name: str) -> None:
    student = ResNet().train()
    student.layers[1].eval()
    student.stem.requires_grad_(False)
    before, keys = seen(student), list(student.state_dict())
    forwards = {path: module.forward.__func__ for path, module in student.named_modules()}
    distiller = prepared(student, **OPTIONS[name])
    distil(distiller)
    assert distiller.student is student
    assert seen(student) == before
    assert list(student.state_dict()) == keys
    assert {path: module.forward.__func__ for path, module in student.named_modules()} == forwards
    assert not any("forward" in module.__dict__ for module in student.modules())
    hooks = [key for module in student.modules() for key, value in module.__dict__.items() if "hooks" in key and value]
    assert not hooks


def test_what_is_seen_can_differ() -> None:
    """The check above sees a hook, an attribute, a frozen weight, a new forward."""

    def frozen(model: ResNet) -> None:
        model.fc.weight.requires_grad_(False)

    changes = [
        frozen,
        lambda model: model.fc.register_forward_hook(print),
        lambda model: model.fc.weight.register_hook(print),
        lambda model: setattr(model.layers, "note", 1),
        lambda model: setattr(model.fc, "forward", print),
        lambda model: model.fc.eval(),
        lambda model: model.register_buffer("more", torch.ones(1)),
    ]
    for change in changes:
        model = ResNet()
        before = seen(model)
        change(model)
        assert seen(model) != before


@EVERY
def test_its_export_is_that_of_a_plain_student(name: str) -> None:
    students, example = [copy.deepcopy(trained(which)[0]) for which in (name, "plain")], (batches()[0][0],)
    exported = [torch.export.export(model.eval(), example) for model in students]
    assert str(exported[0].graph) == str(exported[1].graph)
    assert str(exported[0].graph_signature) == str(exported[1].graph_signature)
    assert_same(students[0](*example), exported[0].module()(*example))


@EVERY
def test_with_all_weights_zero_training_is_bitwise_plain(name: str) -> None:
    (student, state, draw), (plain, plain_state, plain_draw) = trained(name, 0.0), trained("plain")
    assert_equal(plain.state_dict(), student.state_dict())
    assert_equal(plain_state, state)
    assert torch.equal(plain_draw, draw), "as many draws as without"


def assert_equal(wanted: Any, found: Any) -> None:
    """Compare nested values bit by bit."""
    (left, form), (right, other_form) = pytree.tree_flatten(wanted), pytree.tree_flatten(found)
    assert form == other_form
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@EVERY
def test_with_weights_training_is_another_and_the_same_in_every_backend(name: str) -> None:
    """What the test of zero weights compares can differ."""
    student, plain = trained(name)[0], trained("plain")[0]
    assert not torch.equal(student.fc.weight, plain.fc.weight)
    assert not torch.equal(student.stem.weight, plain.stem.weight)
    assert_same(dict(trained("eager")[0].state_dict()), dict(student.state_dict()), 1e-4, atol=1e-5)
