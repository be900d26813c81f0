"""Operations inside a module's forward as points: ``block:add``."""

import copy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd.errors import FxkdError, SpecError
from fxkd.operations import operation_name

BACKENDS = ("graph", "eager")


class Block(nn.Module):
    """Adds twice, in place the second time, and goes on in place; ``inside`` holds what it came to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.inside: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = 2 + self.one(x)
        first = y.clone()
        y += x
        second = y.clone()
        self.inside = [first, second]
        return F.relu(y, inplace=True)


class Net(nn.Module):
    """One block called twice, between operations of its own."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(4, width), Block(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.block(self.stem(x)) + 1)
        return self.head(x) * 0.5


def plain(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a net and give the values inside: (first, second) of each call of the block."""
    model.block.inside, found = [], []
    handle = model.block.register_forward_hook(lambda module, args, output: found.extend(module.inside))
    with handle:
        return model(x), found


def test_names_are_those_of_the_functions() -> None:
    names = {
        torch.add: "add",
        Tensor.__add__: "add",
        Tensor.__rsub__: "sub",
        Tensor.__imul__: "mul_",
        Tensor.relu_: "relu_",
        F.max_pool2d: "max_pool2d",
        Tensor.__getitem__: "getitem",
        Tensor.__invert__: "invert",
        Tensor.__matmul__: "matmul",
        Tensor.round: "round",
        Tensor.shape.__get__: "",
    }
    assert {function: operation_name(function) for function in names} == names


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_gradients_are_those_of_the_values_inside(backend: str) -> None:
    torch.manual_seed(0)
    student, teacher, x = Net().double(), Net().double(), torch.randn(5, 4, dtype=torch.float64)
    spec = spec_of(
        {"first": ("block:add", 0), "second": ("block:add_", 1)},
        {"first": ("block:add_", 0), "second": ("block:add", 1)},
    )
    own, guide = copy.deepcopy(student), copy.deepcopy(teacher)
    out = fxkd.prepare(student, teacher, spec, example_inputs=x[:2], backend=backend)(x)
    out.loss.backward()

    _, inside = plain(own, x)
    with torch.no_grad():
        _, taught = plain(guide, x)
    loss = F.l1_loss(inside[0], taught[1]) + F.l1_loss(inside[3], taught[2])
    loss.backward()
    torch.testing.assert_close(out.loss, loss)
    for mine, theirs in zip(student.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def spec_of(student: dict[str, tuple[str, int]], teacher: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """Compare what two operations give by their L1 distance, pair by pair."""
    return {
        "student_recorders": {name: {"type": "ModuleOutputs", "source": path} for name, (path, _) in student.items()},
        "teacher_recorders": {name: {"type": "ModuleOutputs", "source": path} for name, (path, _) in teacher.items()},
        "distill_losses": {f"loss_{name}": {"type": "L1Loss"} for name in student},
        "loss_forward_mappings": {
            f"loss_{name}": {
                "s_feature": {"recorder": name, "from_student": True, "record_idx": student[name][1]},
                "t_feature": {"recorder": name, "from_student": False, "record_idx": teacher[name][1]},
            }
            for name in student
        },
    }


def test_the_sum_before_an_activation_in_place() -> None:
    """What a ResNet adds up before its activation overwrites it: no module gives it."""
    torch.manual_seed(0)
    model, x = timm.create_model("resnet18", num_classes=5, zero_init_last=False).eval(), torch.randn(2, 3, 64, 64)
    block, kept = model.layer1[0], []
    with block.act2.register_forward_pre_hook(lambda module, args: kept.append(args[0].clone())):
        expected = model(x)
    output, records = fxkd.record(model, {"sum": "layer1.0:add_"}, example_inputs=x)(x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(records["sum"], kept)
    assert (records["sum"][0] < 0).any(), "before the activation"


def test_a_pair_and_its_connector_from_a_table() -> None:
    torch.manual_seed(0)
    student, teacher, x = Net(), Net(9), torch.randn(5, 4)
    found = {(row.path, row.index): row.shape for row in fxkd.points(student, x, ops=True)}
    assert found["block:add", 1] == found["block:add_", 1] == found["block:relu", 0] == (5, 6)
    assert found[":add", 0] == (5, 6)
    assert found[":mul", 0] == found["head:linear", 0] == (5, 3)
    assert not [row for row in fxkd.points(student, x) if ":" in row.path]
    pair = {"student": ":add", "teacher": ":add", "loss": {"type": "L1Loss"}, "student_connector": "auto"}
    distiller = fxkd.prepare(student, teacher, {"pairs": [pair]}, example_inputs=x)
    distiller(x).loss.backward()
    assert student.block.two.weight.grad is None
    assert student.stem.weight.grad.any()
    assert "Operation :add" in str(fxkd.draw(distiller).source)


def test_compiled_whole() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    student, teacher, x = Net(), Net(), torch.randn(5, 4)
    distiller = fxkd.prepare(
        student, teacher, spec_of({"a": ("block:add", 1)}, {"a": ("block:add_", 0)}), example_inputs=x
    )
    expected = distiller(x).loss
    torch.testing.assert_close(torch.compile(distiller, fullgraph=True, backend="aot_eager")(x).loss, expected)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "block:mul",
            "of 'block' (Block) does no 'mul'; its operations are 'add', 'clone', 'add_', 'relu'",
        ),
        ("block:ad", "Did you mean 'add'"),
        ("blok:add", "no module 'blok' in Net"),
        ("block.two:linear", "'block.two' exists, but the student does not call it in its forward"),
    ],
)
def test_what_is_not_there(source: str, told: str) -> None:
    with pytest.raises(SpecError) as raised:
        fxkd.prepare(Net(), Net(), spec_of({"a": (source, 0)}, {"a": ("block", 0)}), example_inputs=torch.ones(2, 4))
    assert told in str(raised.value)
    assert "student_recorders.a.source" in str(raised.value)


@pytest.mark.parametrize("kind", ["ModuleInputs", "ModuleGradients"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_only_outputs_of_operations_are_points(kind: str, backend: str) -> None:
    spec = spec_of({"a": ("block:add", 0)}, {"a": ("block", 0)})
    spec["student_recorders"]["a"]["type"] = kind
    with pytest.raises(FxkdError, match=r"An operation, such as 'layer1\.0:add', is a point of type 'ModuleOutputs'"):
        fxkd.prepare(Net(), Net(), spec, example_inputs=torch.ones(2, 4), backend=backend)


def test_a_delivery_takes_no_operation() -> None:
    spec = {"distill_deliveries": {"a": {"type": "ModuleOutputs", "source": "block:add", "max_keep_data": 2}}}
    with pytest.raises(FxkdError, match="no module 'block:add' in Net"):
        fxkd.prepare(Net(), Net(), spec, example_inputs=torch.ones(2, 4))


def test_record_refuses_gradients() -> None:
    with pytest.raises(SpecError, match=r"recorders\.a\.type: a gradient is that of a loss; fxkd\.record has none"):
        fxkd.record(Net(), {"a": {"type": "ModuleGradients", "source": "block"}})
