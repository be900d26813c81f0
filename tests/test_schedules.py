"""Weights and temperatures that move: their values, one graph for all of them, and a state dict that knows how far."""

import copy
import io
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxkd
from fxkd.errors import SpecError
from fxkd.schedule import Schedule

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
LINEAR = {"schedule": "linear", "start": 4.0, "end": 1.0, "steps": 3}


def net(width: int = 3) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))


def batch() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def prepared(loss: dict[str, Any], backend: str = "graph", **more: Any) -> fxkd.Distiller:
    spec = {"pairs": [{"student": "1", "teacher": "1", "loss": loss}], **more}
    return fxkd.prepare(net(), net(8), spec, example_inputs=(batch(),), backend=backend, verify=False)  # type: ignore[arg-type]


def divergence(tau: float) -> Tensor:
    student, teacher = net()(batch()) / tau, net(8)(batch()) / tau
    return tau**2 * F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")


@BACKENDS
def test_a_temperature_and_a_weight_move_at_each_step(backend: str) -> None:
    loss = {"type": "KLDivergence", "tau": LINEAR, "loss_weight": lambda step: 1.0 + step}
    distiller = prepared(loss, backend)
    for step in range(5):
        expected = (1.0 + step) * divergence(max(1.0, 4.0 - step))
        torch.testing.assert_close(distiller(batch()).loss, expected)
        distiller.step()


@BACKENDS
def test_the_weight_of_the_students_own_loss_moves_too(backend: str) -> None:
    own: dict[str, Any] = {
        "type": "CrossEntropyLoss",
        "args": {"input": "from_output", "target": {"from_input": "labels"}},
    }
    for weight, expected in (
        (0.25, [0.25, 0.25]),
        ({"schedule": "step", "start": 1, "factor": 0.5, "at": [1]}, [1, 0.5]),
    ):
        spec = {"student_loss": own | {"weight": weight}, "inputs": ["labels"]}
        distiller = prepared({"type": "L1Loss"}, backend, **spec)
        labels = torch.tensor([0, 1, 0, 1, 1])
        for factor in expected:
            out = distiller(batch(), labels=labels)
            torch.testing.assert_close(out.student_loss, factor * F.cross_entropy(net()(batch()), labels))
            distiller.step()


@pytest.mark.usefixtures("fresh_dynamo")
def test_nothing_is_compiled_anew() -> None:
    distiller = prepared({"type": "KLDivergence", "tau": LINEAR, "loss_weight": {**LINEAR, "schedule": "cosine"}})
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(distiller, fullgraph=True, backend=counter)
    values = []
    for _ in range(4):
        values.append(compiled(batch()).loss.item())
        distiller.step()
    assert counter.frame_count == 1
    assert len(set(values)) == 4


class Plain(nn.Module):
    """A loss that knows no weight."""

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> list[Tensor]:
        return [(preds_S - preds_T).square().sum(), preds_S.square().sum()]


@BACKENDS
def test_a_weight_that_the_class_does_not_take_is_applied(backend: str) -> None:
    fxkd.loss("PlainOfSchedules")(Plain)
    student, teacher = net()(batch()), net(8)(batch())
    expected = (student - teacher).square().sum() + student.square().sum()
    torch.testing.assert_close(
        prepared({"type": "PlainOfSchedules", "loss_weight": 3}, backend)(batch()).loss, 3 * expected
    )
    moving = prepared({"type": "PlainOfSchedules", "loss_weight": LINEAR}, backend)
    moving.step()
    torch.testing.assert_close(moving(batch()).loss, 3 * expected)


def test_the_state_dict_holds_how_far_it_is() -> None:
    distiller, other = (
        prepared({"type": "KLDivergence", "tau": LINEAR}),
        prepared({"type": "KLDivergence", "tau": LINEAR}),
    )
    distiller.step()
    distiller.step()
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(batch()).loss, divergence(2.0))
    other.step()
    torch.testing.assert_close(other(batch()).loss, divergence(1.0))


@BACKENDS
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: _pickled(d)], ids=["deepcopy", "pickle"])
def test_copies_move_by_themselves(backend: str, copied: Callable[[Any], Any]) -> None:
    distiller = prepared({"type": "KLDivergence", "tau": LINEAR}, backend)
    other = copied(distiller)
    other.step()
    torch.testing.assert_close(distiller(batch()).loss, divergence(4.0))
    torch.testing.assert_close(other(batch()).loss, divergence(3.0))


def _pickled(distiller: Any) -> Any:
    file = io.BytesIO()
    torch.save(distiller, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@BACKENDS
def test_distillation_stops_at_an_epoch_and_the_teacher_no_longer_runs(backend: str) -> None:
    calls = []
    distiller = prepared({"type": "KLDivergence"}, backend, stop_epoch=2)
    distiller.teachers["teacher"][0].register_forward_hook(lambda *_: calls.append(1))
    for epoch in range(3):
        calls.clear()
        losses = distiller(batch()).losses
        assert (bool(losses), bool(calls)) == (epoch < 2, epoch < 2)
        assert distiller.is_stopped is (epoch == 2)
        distiller.step()


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 20), st.integers(0, 5), st.sampled_from(["linear", "cosine"]))
def test_a_course_begins_and_ends_where_it_says(start: float, end: float, steps: int, begin: int, kind: str) -> None:
    schedule = Schedule.read({"schedule": kind, "start": start, "end": end, "steps": steps, "begin": begin})
    values = [schedule.at(step) for step in range(begin + steps + 2)]
    assert all(math.isclose(value, start, abs_tol=1e-9) for value in values[: begin + 1])
    assert all(math.isclose(value, end, abs_tol=1e-9) for value in values[begin + steps :])
    rising = sorted(values, reverse=end < start)
    assert all(math.isclose(one, other, abs_tol=1e-9) for one, other in zip(values, rising, strict=True))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {"schedule": "linaer"},
            "no schedule is called 'linaer'; there is 'constant', 'linear'.*Did you mean 'linear'",
        ),
        ({"schedule": "linear", "start": 1, "end": 0}, "the schedule 'linear' needs 'steps'"),
        ({"schedule": "linear", "start": 1, "end": 0, "step": 2}, "has no 'step'.*Did you mean 'steps'"),
        ({"schedule": "cosine", "start": "1", "end": 0, "steps": 2}, "'start' is '1'; give a number"),
        ({"schedule": "cosine", "start": 1, "end": 0, "steps": 0}, "'steps' is 0; it is 1 or more"),
        ({"schedule": "cosine", "start": 1, "end": 0, "steps": 1.5}, "'steps' is 1.5; give a whole number"),
        ({"schedule": "step", "start": 1, "factor": 0.1}, "needs either 'every' or 'at'"),
        ({"schedule": "step", "start": 1, "factor": 0.1, "at": ["2"]}, "'at' is .'2'.; give a list of steps"),
    ],
)
def test_what_is_no_schedule(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"distill_losses.loss_1: .*{message}"):
        prepared({"type": "KLDivergence", "tau": schedule})


def test_a_number_that_a_class_does_not_keep_cannot_move() -> None:
    fxkd.loss("HiddenOfSchedules")(Hidden)
    with pytest.raises(SpecError, match=r"distill_losses.loss_1: Hidden keeps no number 'size'"):
        prepared({"type": "HiddenOfSchedules", "size": LINEAR})


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "linear", "start": 4, "end": 0, "steps": 3},
        {"schedule": "cosine", "start": 4, "end": -1, "steps": 3, "begin": 2},
        {"schedule": "step", "start": 4, "factor": 0, "at": [2, 5]},
    ],
)
def test_what_a_class_refuses_is_refused_where_a_schedule_arrives(schedule: dict[str, Any]) -> None:
    told = (
        r"distill_losses.loss_1: KLDivergence: tau is -?\d.*; a temperature must be above 0. Its schedule arrives there"
    )
    with pytest.raises(SpecError, match=told):
        prepared({"type": "KLDivergence", "tau": schedule})


def test_a_size_cannot_move() -> None:
    with pytest.raises(SpecError, match=r"distill_losses.loss_1: CRDLoss: neg_num is 4.0"):
        fxkd.prepare(
            net(),
            net(8),
            {
                "pairs": [
                    {"student": "1", "teacher": "1", "loss": {"type": "CRDLoss", "neg_num": LINEAR}}
                    | {"args": {"data_samples": "index"}}
                ],
                "inputs": ["index"],
            },
        )


class Hidden(nn.Module):
    """A loss that keeps its option under another name."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.kept = size

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        return (preds_S - preds_T).mean() * self.kept


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: 3, "a function as schedule gives a number for a number of steps; for 0 it raises TypeError"),
        (lambda step: "a", "gives a number for a number of steps; for 0 it raises ValueError"),
        ({"schedule": ["linear"]}, "no schedule is called ['linear']"),
        ({"schedule": "constant", 3: 4}, "the schedule 'constant' has no '3'; it takes 'value'"),
    ],
)
def test_what_gives_no_number_is_no_schedule(given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        Schedule.read(given)


def test_a_function_that_gives_no_number_is_an_option_like_any_other() -> None:
    loss = {"type": "torch.nn.TripletMarginWithDistanceLoss", "distance_function": lambda a, b: (a - b).square().sum(1)}
    negative = {"negative": {"recorder": "0", "from_student": True, "detach": True}}
    pair = {"student": "0", "teacher": "0", "loss": loss, "args": negative}
    student, teacher, x = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 2)), torch.ones(3, 4)
    out = fxkd.prepare(student, teacher, {"pairs": [pair]}, example_inputs=x)(x)
    apart = (student(x) - teacher(x)).square().sum(1)
    torch.testing.assert_close(out.loss, (apart + 1).mean())
