"""Gradients at points: the records of ``ModuleGradients``, on both backends, for student and teacher."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError, PointError, SpecError
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
LABELS = torch.tensor([0, 1, 2, 0, 1])
OWN = {
    "student_loss": {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}},
    "inputs": ["labels"],
}
POINT = {"type": "ModuleGradients", "source": "first"}


class Net(nn.Module):
    """Layers with an activation in place between them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.relu, self.fc = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.relu(self.first(x)).square())
        return logits


def batch() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def by_hand(net: Net, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Give the own loss of a net and its gradient at the first layer."""
    first = net.first(batch())
    loss = F.cross_entropy(net.fc(first.relu().square()), LABELS)
    (found,) = torch.autograd.grad(loss, first, create_graph=keep, retain_graph=True)
    return loss, found


def spec(kind: str = "L1Loss", **more: Any) -> dict[str, Any]:
    return {"pairs": [{"student": POINT, "teacher": POINT, "loss": {"type": kind}}], **OWN, **more}


@BACKENDS
def test_a_student_learns_the_teachers_gradients(backend: str) -> None:
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    student, teacher = Net(0), Net(1)
    distiller = fxkd.prepare(student, teacher, spec(), example_inputs=given, backend=backend, return_records=True)  # type: ignore[arg-type]
    own = Net(0)
    (loss, mine), (_, theirs) = by_hand(own, keep=True), by_hand(Net(1), keep=False)
    expected = (mine - theirs).abs().mean()
    out = distiller(**given)
    assert_same([out.student_loss, out.losses["loss_first"]], [loss, expected])
    assert_same([out.records["student"]["first"][0], out.records["teacher"]["first"][0]], [mine, theirs])
    assert not out.records["teacher"]["first"][0].requires_grad
    assert "teacher_loss" not in out
    out.loss.backward()
    (loss + expected).backward()
    assert_same([p.grad for p in student.parameters()], [p.grad for p in own.parameters()])
    assert not any(p.grad is not None or p.requires_grad for p in teacher.parameters())


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_it_is_the_same() -> None:
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    results = []
    trained = spec(teacher_trainable=True)
    for compile in (False, {"backend": "aot_eager", "fullgraph": True}):
        student = Net(0)
        distiller = fxkd.prepare(student, Net(1), trained, example_inputs=given, compile=compile)
        out = distiller(**given)
        out.loss.backward()
        results.append([out.loss, *(p.grad for p in student.parameters())])
    assert_same(results[0], results[1], rtol=1e-5)


def test_of_a_frozen_teacher_it_cannot_be_compiled() -> None:
    with pytest.raises(CaptureError, match="cannot take the gradient at a point of a frozen model"):
        fxkd.prepare(Net(0), Net(1), spec(), example_inputs={"x": batch(), "labels": LABELS}, compile=True)


@BACKENDS
def test_a_point_that_is_a_record_and_a_gradient(backend: str) -> None:
    value = {"type": "ModuleOutputs", "source": "first"}
    pairs = [{"student": kind, "teacher": kind, "loss": {"type": "L1Loss"}} for kind in (POINT, value)]
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    distiller = fxkd.prepare(Net(0), Net(1), {"pairs": pairs, **OWN}, example_inputs=given, backend=backend)  # type: ignore[arg-type]
    mine, theirs = by_hand(Net(0), keep=False)[1], by_hand(Net(1), keep=False)[1]
    values = (Net(0).first(batch()) - Net(1).first(batch())).abs().mean()
    assert_same(list(distiller(**given).losses.values()), [(mine - theirs).abs().mean(), values])


@BACKENDS
def test_without_gradients_or_a_loss_it_is_refused(backend: str) -> None:
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    distiller = fxkd.prepare(Net(0), Net(1), spec(), example_inputs=given, backend=backend)  # type: ignore[arg-type]
    with (
        torch.no_grad(),
        pytest.raises(PointError, match="there are no gradients in this call; call it with gradients on"),
    ):
        distiller(**given)
    bare = {"pairs": spec()["pairs"]}
    with pytest.raises(
        SpecError, match=r"recorders.first: a gradient is that of the model's own loss, and the model ret"
    ):
        fxkd.prepare(Net(0), Net(1), bare, backend=backend)(batch())  # type: ignore[arg-type]


@BACKENDS
def test_what_a_frozen_teacher_hands_over_carries_no_gradient(backend: str) -> None:
    """Its values hang on one another where gradients at its points are recorded; a student gets them bare."""
    delivery = {"type": "ModuleOutputs", "source": "relu", "max_keep_data": 1}
    pairs = [{"student": {**POINT, "source": "fc"}, "teacher": POINT | {"source": "fc"}, "loss": {"type": "L1Loss"}}]
    more = [{"student": "first", "teacher": POINT, "loss": {"type": "L1Loss"}}]
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    whole = {"pairs": pairs + more, "distill_deliveries": {"d": delivery}, **OWN}
    student, teacher = Net(0), Net(1)
    distiller = fxkd.prepare(student, teacher, whole, example_inputs=given, backend=backend)  # type: ignore[arg-type]
    out = distiller(**given)
    out.loss.backward()
    own = Net(0)
    with torch.no_grad():
        taken = Net(1).relu(Net(1).first(batch()))
    logits = own.fc(taken.square())
    loss = F.cross_entropy(logits, LABELS)
    (mine,) = torch.autograd.grad(loss, logits, create_graph=True)
    reference = Net(1)
    theirs = reference.fc(reference.first(batch()).relu().square())
    (at_fc,) = torch.autograd.grad(F.cross_entropy(theirs, LABELS), theirs)
    expected = loss + (mine - at_fc).abs().mean() + (own.first(batch()) - by_hand(Net(1), keep=False)[1]).abs().mean()
    expected.backward()
    assert_same(out.loss, expected)
    assert_same([p.grad for p in student.parameters()], [p.grad for p in own.parameters()])


class Two(Net):
    """Its first layer gives two values."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.first = Halves()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.cat(self.first(x), dim=1))
        return logits


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :3], x[:, 1:]


@BACKENDS
def test_several_values_have_no_gradient(backend: str) -> None:
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    with pytest.raises(Exception, match=r"gives a tuple, of which there is no gradient|is a tuple of 2"):
        fxkd.prepare(Two(0), Two(1), spec(), backend=backend)(**given)  # type: ignore[arg-type]


@BACKENDS
def test_where_a_value_is_delivered_it_is_the_gradient_at_that_value(backend: str) -> None:
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    delivered = {"d": {"type": "ModuleOutputs", "source": "first"}}
    distiller = fxkd.prepare(
        Net(0),
        Net(1),
        spec(distill_deliveries=delivered),
        example_inputs=given,
        backend=backend,  # type: ignore[arg-type]
        return_records=True,
    )
    first = Net(1).first(batch()).detach().requires_grad_()
    loss = F.cross_entropy(Net(0).fc(first.relu().square()), LABELS)
    assert_same(distiller(**given).records["student"]["first"][0], torch.autograd.grad(loss, first)[0])


@BACKENDS
def test_inputs_of_a_module_called_twice_are_delivered_beside_gradients(backend: str) -> None:
    class Twice(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.first, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.first(x) + self.first(x * 2).square())
            return logits

    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    delivered = {"d": {"type": "ModuleInputs", "source": "first", "max_keep_data": 2}}
    last = {"type": "ModuleGradients", "source": "first", "record_idx": 1}
    pairs = [{"student": last, "teacher": last, "loss": {"type": "L1Loss"}}]
    found = spec(pairs=pairs, distill_deliveries=delivered)
    out = fxkd.prepare(Twice(0), Twice(1), found, example_inputs=given, backend=backend)(**given)  # type: ignore[arg-type]

    def by_twice(net: Twice) -> Tensor:
        one, two = net.first(batch()), net.first(batch() * 2)
        loss = F.cross_entropy(net.fc(one + two.square()), LABELS)
        return torch.autograd.grad(loss, two)[0]

    assert_same(out.losses["loss_first"], (by_twice(Twice(0)) - by_twice(Twice(1))).abs().mean())
