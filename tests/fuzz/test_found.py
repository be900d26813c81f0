"""What random models have found, each shrunk to the smallest model that shows it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd


class Net(nn.Module):
    """Two layers; what lies between them differs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(x).tanh())


def spec_of(**given: Any) -> dict[str, Any]:
    return {"student_loss": False} | given


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_what_a_frozen_teacher_hands_on_of_the_input_has_no_gradient(backend: Any) -> None:
    x = torch.ones(3, 4, requires_grad=True)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleInputs", "source": "first"}})
    fxkd.prepare(Net(0), Net(1), spec, example_inputs=x, backend=backend)(x).output.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_what_a_frozen_teacher_records_of_the_input_has_no_gradient(backend: Any) -> None:
    pair = {"input": {"recorder": "own", "from_student": True}}
    pair |= {"target": {"recorder": "given", "from_student": False, "data_idx": 0}}
    spec = spec_of(
        student_recorders={"own": {"type": "Parameter", "source": "first.weight"}},
        teacher_recorders={"given": {"type": "ModuleInputs", "source": "first"}},
        distill_losses={"loss": nn.MSELoss()},
        loss_forward_mappings={"loss": pair},
    )
    x = torch.ones(4, 4, requires_grad=True)
    fxkd.prepare(Net(0), Net(1), spec, example_inputs=x, backend=backend)(x).loss.backward()
    assert x.grad is None


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_what_a_frozen_teacher_records_of_what_the_student_gave_it_has_no_gradient(backend: Any) -> None:
    spec = spec_of(
        student_recorders={"own": {"type": "Parameter", "source": "last.weight"}},
        teacher_recorders={"given": {"type": "ModuleOutputs", "source": "first"}},
        distill_deliveries={"by_student": {"type": "ModuleOutputs", "source": "first", "from_student": True}},
        distill_losses={"loss": nn.MSELoss()},
        loss_forward_mappings={
            "loss": {
                "input": {"recorder": "own", "from_student": True},
                "target": {"recorder": "given", "from_student": False},
            }
        },
    )
    student, x = Net(0), torch.ones(4, 4)
    fxkd.prepare(student, Net(1), spec, example_inputs=x, backend=backend)(x).loss.backward()
    assert student.first.weight.grad is None
    wanted = torch.autograd.functional.jacobian(
        lambda weight: nn.functional.mse_loss(weight, student.first(x)), student.last.weight
    )
    torch.testing.assert_close(student.last.weight.grad, wanted)


@dataclass
class Boxed:
    """A value in a class that torch's pytree does not know."""

    value: Tensor


class Box(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return Boxed(super().forward(x))


class WritesIntoBox(Net):
    """The value at the point is overwritten later."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.box = Box(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        boxed = self.box(x)
        boxed.value.mul_(3)
        return self.last(boxed.value)


class OfBoxes(nn.Module):
    def forward(self, own: Boxed, given: Boxed) -> Tensor:
        return nn.functional.mse_loss(own.value, given.value)


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("is_delivered", [True, False])
def test_what_a_dataclass_holds_is_copied_where_it_is_written_to(backend: Any, is_delivered: bool) -> None:
    x, student, teacher = torch.ones(3, 4), WritesIntoBox(0), WritesIntoBox(1)
    point = {"point": {"type": "ModuleOutputs", "source": "box"}}
    mapping = {"recorder": "point", "from_student": True}, {"recorder": "point", "from_student": False}
    spec = spec_of(
        student_recorders=point,
        teacher_recorders=point,
        distill_losses={"loss": OfBoxes()},
        loss_forward_mappings={"loss": dict(zip(("own", "given"), mapping, strict=True))},
    )
    if is_delivered:
        spec["distill_deliveries"] = {"given": point["point"]}
    out = fxkd.prepare(student, teacher, spec, backend=backend, verify=False)(x)
    own, given = (nn.functional.linear(x, model.box.weight, model.box.bias) for model in (student, teacher))
    own = given if is_delivered else own
    torch.testing.assert_close(out.loss, nn.functional.mse_loss(own, given))
    torch.testing.assert_close(out.output, student.last(own * 3))


class WritesIfLarge(nn.Module):
    """Writes to its input, but not in a batch as small as that on which it is captured."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(3) if x.shape[0] > 3 else x * 3


class HoldsWriter(Net):
    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.writer = WritesIfLarge()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.writer(self.first(x)))


@pytest.mark.parametrize(("kind", "source"), [("ModuleOutputs", "first"), ("ModuleInputs", "writer")])
@pytest.mark.parametrize("sizes", [(3, 6), (6, 3)])
def test_a_module_that_is_one_node_writes_to_its_input_at_other_sizes(kind: str, source: str, sizes: Any) -> None:
    student, teacher = HoldsWriter(0), HoldsWriter(1)
    point = {"point": {"type": kind, "source": source}}
    choice = {"recorder": "point"} | ({"data_idx": 0} if kind == "ModuleInputs" else {})
    spec = spec_of(
        student_recorders=point,
        teacher_recorders=point,
        distill_losses={"loss": nn.MSELoss()},
        loss_forward_mappings={
            "loss": {"input": choice | {"from_student": True}, "target": choice | {"from_student": False}}
        },
    )
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=torch.ones(sizes[0], 4), verify=False)
    for size in sizes:
        x = torch.ones(size, 4)
        torch.testing.assert_close(distiller(x).loss, nn.functional.mse_loss(student.first(x), teacher.first(x)))
    assert len(distiller.programs) == 1


class WritesToHalf(Net):
    """What the point gives is a view, and is written to."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.part = Half()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.part(self.first(x)).mul_(self.last.bias[:2]), (0, 2))


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


def test_a_student_writes_to_a_view_that_the_teacher_hands_over() -> None:
    x, student, teacher = torch.ones(3, 4), WritesToHalf(0), WritesToHalf(1)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "part"}})
    out = fxkd.prepare(student, teacher, spec, verify=False)(x)
    wanted = teacher.first(x)[:, :2] * student.last.bias[:2]
    torch.testing.assert_close(out.output[:, :2], wanted)
    out.output.sum().backward()
    assert student.last.bias.grad is not None


class WritesAround(Net):
    """Writes to a value before a layer is given it, and to what the layer gives."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.view(-1).mul_(2)
        one, other = self.pair(y)
        one.mul_(3)
        return self.last(one + other)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x - 1


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_a_delivery_of_inputs_gives_what_was_written_before_the_call(backend: Any) -> None:
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleInputs", "source": "pair"}})
    student, teacher, x = WritesAround(0), WritesAround(1), torch.ones(3, 4)
    one, other = teacher.pair(teacher.first(x) * 2)
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend)(x).output
    torch.testing.assert_close(output, student.last(one * 3 + other))


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_delivery_gives_a_part_as_it_was_before_it_is_written_to(backend: Any, gradients: bool) -> None:
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "pair", "data_idx": 0}})
    spec["teacher_gradients"] = gradients
    student, teacher, x = WritesAround(0), WritesAround(1), torch.ones(3, 4)
    one, other = teacher.pair(teacher.first(x) * 2)[0], student.pair(student.first(x) * 2)[1]
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend, verify=False)(x).output
    torch.testing.assert_close(output, student.last(one * 3 + other))


class ReturnsLoss(WritesAround):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return {"loss": value.square().mean(), "value": value}


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_a_teacher_whose_gradients_are_recorded_delivers_what_it_had(backend: Any) -> None:
    gradient = {"type": "ModuleGradients", "source": "last"}
    spec = spec_of(
        teacher_recorders={"gradient": gradient},
        distill_deliveries={"given": {"type": "ModuleOutputs", "source": "pair"}},
    )
    student, teacher, x = ReturnsLoss(0), ReturnsLoss(1), torch.ones(3, 4)
    one, other = teacher.pair(teacher.first(x) * 2)
    distiller = fxkd.prepare(
        student, teacher, spec, example_inputs=x, backend=backend, verify=False, return_records=True
    )
    torch.testing.assert_close(distiller(x).output["value"], student.last(one * 3 + other))


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_a_value_whose_gradient_is_recorded_is_delivered_to_who_writes_to_it(backend: Any) -> None:
    class Writes(Net):
        def forward(self, x: Tensor) -> Any:
            value = self.last(self.first(x).mul_(2))
            return {"loss": value.square().mean(), "value": value}

    spec = spec_of(
        student_recorders={"slope": {"type": "ModuleGradients", "source": "first"}},
        distill_deliveries={"given": {"type": "ModuleOutputs", "source": "first", "from_student": True}},
        student_loss="auto",
    )
    student, x = ReturnsLoss(0), torch.ones(3, 4)
    value = student(x)["value"]
    distiller = fxkd.prepare(
        student, Writes(1), spec, example_inputs=x, backend=backend, verify=False, return_records=True
    )
    torch.testing.assert_close(distiller(x).output["value"], value)


class Residual(Net):
    """Goes on with what a part was given as well as with what it gave."""

    def __init__(self, part: nn.Module, seed: int = 0) -> None:
        super().__init__(seed)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.part(y)) + y


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("part", [nn.Identity(), nn.LeakyReLU(0.1, inplace=True)], ids=["identity", "in place"])
def test_a_delivery_replaces_what_a_part_gives_and_not_what_it_was_given(backend: Any, part: nn.Module) -> None:
    delivery = {"type": "ModuleOutputs", "source": "first", "target": "part"}
    student, teacher, x = Residual(part, 0), Residual(nn.Tanh(), 1), torch.randn(3, 4)
    spec = spec_of(distill_deliveries={"given": delivery})
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend, verify=False)(x).output
    torch.testing.assert_close(output, student.last(teacher.first(x)) + student.first(x))


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("part", [nn.Dropout(0.0), nn.ReLU(inplace=True)], ids=["identity", "in place"])
def test_a_delivery_of_inputs_replaces_what_a_part_is_given_and_nothing_else(backend: Any, part: nn.Module) -> None:
    student, teacher, x = Residual(part, 0), Residual(part, 1), torch.randn(3, 4)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleInputs", "source": "part"}})
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend, verify=False)(x).output
    torch.testing.assert_close(output, student.last(part(teacher.first(x))) + student.first(x))


class Held(dict[str, Any]):
    """A dict of its own kind."""


@dataclass
class Counted:
    """A dataclass that sets a field itself."""

    value: Tensor
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = 3


class Holds(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return Held(value=x) if self.form == "dict" else Counted(x)


class Opens(Residual):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        held = self.part(y)
        return self.last(held["value"] if isinstance(held, dict) else held.value) + y


@pytest.mark.parametrize("form", ["dict", "dataclass"])
def test_a_delivery_replaces_what_lies_in_a_container_of_any_kind(form: str) -> None:
    student, teacher, x = Opens(Holds(form), 0), Opens(Holds(form), 1), torch.randn(3, 4)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "part"}})
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, verify=False)(x).output
    torch.testing.assert_close(output, student.last(teacher.first(x)) + student.first(x))


class WithoutGradients(Residual):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        with torch.no_grad():
            z = self.part(y)
        return self.last(z.mul_(2)) + y


def test_a_delivered_value_that_was_made_without_gradients_is_written_to() -> None:
    student, teacher, x = WithoutGradients(nn.Identity(), 0), WithoutGradients(nn.Tanh(), 1), torch.randn(3, 4)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "part"}})
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, verify=False)(x).output
    torch.testing.assert_close(output, student.last(teacher.first(x).tanh() * 2) + student.first(x))


class Factor:
    value = 1.0


class TakesFactor(nn.Module):
    def forward(self, x: Tensor, factor: Factor) -> tuple[Tensor, Tensor]:
        return x * factor.value, x


class SetsFactor(Net):
    """Sets something in an object of its own that a part reads, so that the part cannot be one node."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.part, self.factor = TakesFactor(), Factor()

    def forward(self, x: Tensor) -> Tensor:
        self.factor.value = 2.0
        y = self.first(x)
        one, other = self.part(y, self.factor)
        return self.last(one) + other + y


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_a_delivery_replaces_all_that_an_opened_part_gives(backend: Any) -> None:
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "part"}})
    student, teacher, x = SetsFactor(0), SetsFactor(1), torch.randn(3, 4)
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend, verify=False)(x).output
    given = teacher.first(x)
    torch.testing.assert_close(output, student.last(2 * given) + given + student.first(x))


class GivesTwice(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        y = x * 2
        return [y, y[:, :2], y]


class TakesFirst(Residual):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        one, _, other = self.part(y)
        return self.last(one) + other


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_delivery_replaces_one_of_two_parts_that_are_one_tensor(place: int, backend: Any) -> None:
    student, teacher, x = TakesFirst(GivesTwice(), 0), TakesFirst(GivesTwice(), 1), torch.randn(3, 4)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleOutputs", "source": "part", "data_idx": place}})
    output = fxkd.prepare(student, teacher, spec, example_inputs=x, backend=backend, verify=False)(x).output
    own, given = student.first(x) * 2, teacher.first(x) * 2
    wanted = student.last(given) + own if place == 0 else student.last(own) + given
    torch.testing.assert_close(output, wanted)
