"""What is handed over between the models, beyond whole outputs of the teacher: inputs, parts, the other way round."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import SpecError
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
ME = __name__


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def mix(x: Tensor, y: Tensor, *, scale: float = 1.0) -> Tensor:
    return x + scale * y


class Mixer:
    """Has a method."""

    def blend(self, x: Tensor, part: float = 0.5) -> tuple[Tensor, float]:
        return x * part, part


class Splitter(nn.Module):
    """Gives two values in the container it is told."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.make = nn.Linear(4, 8), make

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Any:
        left, right = self.layer(x if factor is None else x * factor).chunk(2, dim=1)
        return self.make(left, right)


class Net(nn.Module):
    """Uses a module, a function and a method."""

    def __init__(self, seed: int, make: Callable[[Tensor, Tensor], Any] = Pair) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.entry, self.relu, self.split = nn.Linear(4, 4), nn.ReLU(inplace=True), Splitter(make)
        self.head, self.mixer = nn.Linear(4, 3), Mixer()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.entry(x))
        both = self.split(hidden, factor=hidden + 1)
        left, right = (both["left"], both["right"]) if isinstance(both, dict) else both
        mixed = mix(left, right, scale=2.0)
        blended, part = self.mixer.blend(mixed, part=0.25)
        logits: Tensor = self.head(blended) * part
        return logits


def make_dict(left: Tensor, right: Tensor) -> dict[str, Tensor]:
    return {"left": left, "right": right}


def batch() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def by_hand(net: Net, x: Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """Run a net by hand with what is ``given`` in place of its own, and tell every value."""
    told: dict[str, Any] = {}
    told["relu inputs"] = given.get("relu inputs", net.entry(x))
    hidden = told["relu inputs"].relu()
    told["split inputs"] = given.get("split inputs", (hidden, hidden + 1))
    both = net.split(told["split inputs"][0], factor=told["split inputs"][1])
    left, right = (both["left"], both["right"]) if isinstance(both, dict) else both
    told["right"] = given.get("right", right)
    told["mix inputs"] = given.get("mix inputs", (left, told["right"]))
    mixed = told["mix inputs"][0] + 2.0 * told["mix inputs"][1]
    told["blend inputs"] = given.get("blend inputs", mixed)
    told["logits"] = net.head(told["blend inputs"] * 0.25) * 0.25
    return told


CASES = {
    "relu inputs": {"type": "ModuleInputs", "source": "relu"},
    "split inputs": {"type": "ModuleInputs", "source": "split"},
    "mix inputs": {"type": "FunctionInputs", "func_path": f"{ME}.mix"},
    "blend inputs": {"type": "MethodInputs", "method_path": f"{ME}.Mixer.blend"},
    "right": {"type": "ModuleOutputs", "source": "split", "data_idx": 1},
}


def check_same(
    delivery: dict[str, Any], name: str, backend: str, make: Any = Pair, *, from_student: bool = False
) -> None:
    """Compare with the run by hand: output, gradients of the student; the teacher's side where it takes."""
    student, teacher = Net(0, make), Net(1, make)
    own, other = copy.deepcopy(student), copy.deepcopy(teacher)
    spec = {
        "distill_deliveries": {"d": delivery | {"max_keep_data": 1, "from_student": from_student}},
        "pairs": [{"student": "head", "teacher": "head", "loss": {"type": "L1Loss"}}],
    }
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    if from_student:
        mine = by_hand(own, batch(), {})
        theirs = by_hand(other, batch(), {name: mine[name]})
    else:
        with torch.no_grad():
            theirs = by_hand(other, batch(), {})
        mine = by_hand(own, batch(), {name: theirs[name]})
    expected = (mine["logits"] / 0.25 - theirs["logits"].detach() / 0.25).abs().mean()
    out = distiller(batch())
    assert_same(out.output, mine["logits"])
    assert_same(out.loss, expected)
    out.loss.backward()
    expected.backward()
    assert_same([p.grad for p in student.parameters()], [p.grad for p in own.parameters()])


@BACKENDS
@pytest.mark.parametrize("name", CASES)
def test_inputs_and_parts_are_handed_over(name: str, backend: str) -> None:
    check_same(CASES[name], name, backend)


@BACKENDS
@pytest.mark.parametrize("name", CASES)
def test_the_other_way_round(name: str, backend: str) -> None:
    check_same(CASES[name], name, backend, from_student=True)


@BACKENDS
@pytest.mark.parametrize(("make", "part"), [(make_dict, "right"), (lambda *both: both, -1), (lambda *both: [*both], 1)])
def test_a_part_by_key_or_place(make: Any, part: Any, backend: str) -> None:
    check_same(CASES["right"] | {"data_idx": part}, "right", backend, make)


class Twice(nn.Module):
    """Two layers under names of its own."""

    def __init__(self, seed: int, names: tuple[str, str]) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.names = names
        for name in names:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


@BACKENDS
def test_the_point_may_have_another_path_in_the_model_that_takes(backend: str) -> None:
    student, teacher = Twice(0, ("one", "two")), Twice(1, ("first", "second"))
    delivery = {"type": "ModuleOutputs", "source": "first", "target": "one", "max_keep_data": 1}
    spec = {"distill_deliveries": {"d": delivery}}
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    assert_same(
        distiller(batch()).output, student.get_submodule("two")(teacher.get_submodule("first")(batch()).detach())
    )
    assert "d: teacher -> student, ModuleOutputs 'first' to 'one'" in repr(distiller)


def test_a_list_of_deliveries_is_legal() -> None:
    spec = fxkd.Spec.load({"distill_deliveries": [CASES["mix inputs"] | {"max_keep_data": 1}]})
    assert list(spec.distill_deliveries) == ["0"]


@pytest.mark.parametrize(
    ("deliveries", "message"),
    [
        ([{"type": "ModuleInputs", "source": "rlu"}], r"distill_deliveries.0.source: .*rlu"),
        ([{"type": "ModuleOutputs", "source": "relu", "target": "reluu"}], r"distill_deliveries.0.target: .*reluu"),
        ([{"type": "ModuleInputs", "source": "relu", "data_idx": 0}], r"data_idx: picks a part of what a call gives"),
        (
            [{"type": "ModuleOutputs", "source": "split", "data_idx": 2}],
            r"d.*0: data_idx=2, but the record is a Pair of 2",
        ),
        ([{"type": "ModuleOutputs", "source": "relu", "data_idx": 0}], r"0: data_idx=0, but the record is one"),
        ([CASES["relu inputs"], CASES["mix inputs"] | {"from_student": True}], "neither model could run first"),
        (
            [{"type": "ModuleInputs", "source": "relu", "target": "split"}],
            "call 0 of 'relu' gives a tuple in the teacher",
        ),
    ],
)
def test_what_cannot_be_handed_over(deliveries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises((SpecError, fxkd.errors.PointError), match=message):
        fxkd.prepare(Net(0), Net(1), {"distill_deliveries": deliveries}, example_inputs=(batch(),))


def test_inputs_of_a_module_with_a_point_inside_cannot_be_replaced() -> None:
    spec = {
        "distill_deliveries": [{"type": "ModuleInputs", "source": "split"}],
        "pairs": [{"student": "split.layer", "teacher": "split.layer", "loss": {"type": "L1Loss"}}],
    }
    with pytest.raises(SpecError, match="the inputs of 'split' cannot be replaced: a point lies inside it"):
        fxkd.prepare(Net(0), Net(1), spec, example_inputs=(batch(),))


class Rectified(nn.Module):
    """Returns the value of its layer, which a student then writes to in place."""

    def __init__(self, seed: int, rectify: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.rectify = nn.Linear(4, 3), rectify

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.fc(x)
        return value.relu_() if self.rectify else value


@BACKENDS
def test_what_the_taker_writes_to_stays_what_it_is_for_the_giver(backend: str) -> None:
    own = {"type": "MSELoss", "args": {"input": "from_output", "target": {"from_input": "target"}}}
    spec = {
        "student_loss": own,
        "inputs": ["target"],
        "teacher_trainable": True,
        "distill_deliveries": {"d": {"type": "ModuleOutputs", "source": "fc"}},
    }
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"x": x, "target": torch.zeros(5, 3, dtype=torch.float64)}
    teacher, expected = Rectified(1, rectify=False).double(), Rectified(1, rectify=False).double()
    distiller = fxkd.prepare(Rectified(0, rectify=True).double(), teacher, spec, example_inputs=given, backend=backend)  # type: ignore[arg-type]
    out = distiller(**given)
    value = expected.fc(x)
    theirs, mine = value.square().mean(), value.relu().square().mean()
    torch.testing.assert_close([out.teacher_loss, out.student_loss], [theirs, mine])
    out.loss.backward()
    (theirs + mine).backward()
    torch.testing.assert_close(teacher.fc.weight.grad, expected.fc.weight.grad)


class Parts(nn.Module):
    """Gives a sum and a product."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x * y


class CallsParts(nn.Module):
    """Calls a module of several values twice."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.parts = nn.Linear(4, 4), Parts()

    def forward(self, x: Tensor) -> Tensor:
        value = self.fc(x)
        left, right = self.parts(value, y=value * 2)
        left, right = self.parts(left.relu(), y=right)
        out: Tensor = left + right
        return out


@BACKENDS
@pytest.mark.parametrize("order", ["pi", "ip"])
def test_inputs_and_a_part_of_one_module_called_twice(backend: str, order: str) -> None:
    deliveries = {
        "p": {"type": "ModuleOutputs", "source": "parts", "data_idx": 1, "max_keep_data": 2},
        "i": {"type": "ModuleInputs", "source": "parts", "max_keep_data": 2},
    }
    pair = {"student": "", "teacher": "", "loss": {"type": "L1Loss"}}
    spec = {"distill_deliveries": {name: deliveries[name] for name in order}, "pairs": [pair]}
    x = batch()
    student, teacher = CallsParts(0).to(x.dtype), CallsParts(1).to(x.dtype)
    out = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend)(x)  # type: ignore[arg-type]
    torch.testing.assert_close(out.output, teacher(x))
