"""Who teaches: several teachers, none, one that trains, one through which gradients flow; and what trains."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd.errors import SpecError
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
LABELS = torch.tensor([0, 1, 2, 0, 1])
OWN = {
    "student_loss": {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}},
    "inputs": ["labels"],
}


class Net(nn.Module):
    """Two layers and a norm between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.first, self.norm, self.fc = nn.Linear(4, width, bias=False), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(self.first(x)).relu())
        return logits


def batch(count: int = 5) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0))


def pair(student: str, teacher: str, loss: str = "L2Loss", **more: Any) -> dict[str, Any]:
    return {"student": student, "teacher": teacher, "loss": {"type": loss}, **more}


def recorded(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """Give the value at a point by a plain hook."""
    found: list[Tensor] = []
    with model.get_submodule(path).register_forward_hook(lambda m, a, value: found.append(value)):
        model(x)
    return found[0]


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(1), teacher.detach().softmax(1), reduction="batchmean")


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


# Several


@BACKENDS
def test_several_teachers_teach_each_at_their_points(backend: str) -> None:
    wide, deep = Net(8), Net(6)
    spec = {"pairs": [pair("fc", "wide.fc", "KLDivergence"), pair("fc", "deep.fc", "KLDivergence")]}
    distiller = fxkd.prepare(Net(4), {"wide": wide, "deep": deep}, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    assert distiller.teachers == {"wide": wide, "deep": deep}
    student = Net(4)
    expected = [kl(student(batch()), teacher.eval()(batch())) for teacher in (wide, deep)]
    out = distiller(batch())
    assert_same(list(out.losses.values()), expected)
    out.loss.backward()
    sum(expected).backward()  # type: ignore[union-attr]
    assert_same([p.grad for p in distiller.student.parameters()], [p.grad for p in student.parameters()])
    assert not trained_names(wide) | trained_names(deep)
    assert not any("teacher" in name or "wide" in name for name in distiller.state_dict())


def test_from_teacher_is_short_for_a_prefix() -> None:
    long = fxkd.Spec.load({"pairs": [pair("fc", "wide.fc")]})
    point = {"type": "ModuleOutputs", "source": "fc", "from_teacher": "wide"}
    short = fxkd.Spec.load({"pairs": [{**pair("fc", ""), "teacher": point}]})
    assert list(short.teacher_recorders.values()) == list(long.teacher_recorders.values())
    root = {"type": "ModuleOutputs", "source": "", "from_teacher": "wide"}
    assert fxkd.Spec.load({"teacher_recorders": {"all": root}}).teacher_recorders["all"].source == "wide"


@BACKENDS
def test_only_what_is_asked_of_each_teacher_is_run(backend: str) -> None:
    spec = {"pairs": [pair("first", "wide.first", student_connector="auto")]}
    teachers = {"wide": Net(8), "idle": Net(6)}
    distiller = fxkd.prepare(Net(4), teachers, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    calls: list[str] = []
    for name, teacher in teachers.items():
        teacher.fc.register_forward_hook(lambda *_, name=name: calls.append(name))
    distiller(batch())  # hooks are part of what a graph is captured for
    calls.clear()
    distiller(batch())
    assert calls == ([] if backend == "graph" else ["wide", "idle"])


class Joined(nn.Module):
    """Concatenate what several teachers give."""

    def forward(self, values: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(values, dim=1)


@BACKENDS
def test_a_connector_takes_the_records_of_several(backend: str) -> None:
    spec = {
        "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "teacher_recorders": {
            name: {"type": "ModuleOutputs", "source": "fc", "from_teacher": name} for name in ("wide", "deep")
        },
        "connectors": {"join": Joined(), "widen": {"type": "LinearConnector", "in_features": 3, "out_features": 6}},
        "distill_losses": {"loss": {"type": "L1Loss"}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": {"recorder": "fc", "from_student": True, "connector": "widen"},
                "t_feature": {"recorder": ["wide", "deep"], "from_student": False, "connector": "join"},
            }
        },
    }
    teachers = {"wide": Net(8), "deep": Net(6)}
    distiller = fxkd.prepare(Net(4), teachers, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    expected = torch.cat([teacher(batch()) for teacher in teachers.values()], dim=1)
    student = distiller.connectors.widen(Net(4)(batch()))
    assert_same(distiller(batch()).loss, (student - expected).abs().mean())
    assert "teacher.wide, deep" in repr(distiller)


# None: the student teaches itself


@BACKENDS
def test_a_student_learns_from_itself_and_what_it_learns_from_gets_no_gradient(backend: str) -> None:
    spec = {"pairs": [pair("first", "norm")]}
    distiller = fxkd.prepare(Net(4), None, spec, example_inputs=(batch(),), backend=backend, return_records=True)  # type: ignore[arg-type]
    out, student = distiller(batch()), Net(4)
    first, norm = recorded(student, "first", batch()), recorded(copy.deepcopy(student), "norm", batch()).detach()
    rows = [value / value.norm(dim=1, keepdim=True) for value in (first, norm)]
    expected = (rows[0] - rows[1]).square().sum() / 5
    assert_same(out.loss, expected)
    assert_same(out.records["teacher"]["norm"][0], norm)
    out.loss.backward()
    assert trained_names(distiller.student) == {"first.weight"}
    assert distiller.teachers == {}


def test_a_student_without_a_teacher_delivers_to_nobody() -> None:
    delivery = {"d": {"type": "ModuleOutputs", "source": "first", "max_keep_data": 1}}
    with pytest.raises(SpecError, match="distill_deliveries: there is no other model to deliver to"):
        fxkd.prepare(Net(4), None, {"distill_deliveries": delivery})
    with pytest.raises(
        SpecError, match="self_distillation: is true, but there is a teacher; give prepare teacher=None"
    ):
        fxkd.prepare(Net(4), Net(8), {"pairs": [pair("fc", "fc")], "self_distillation": True})


def test_check_knows_who_teaches() -> None:
    report = fxkd.check(Net(4), None, {"pairs": [pair("first", "norm")]}, batch())
    assert report.ok, report
    report = fxkd.check(Net(4), {"a": Net(8), "b": Net(6)}, {"pairs": [pair("fc", "c.fc")]}, batch())
    assert "c.fc" in report.problems[0]


# A teacher that trains


@BACKENDS
@pytest.mark.parametrize("teacher_mode", [None, "train", "norm_eval", "eval"])
def test_mutual_learning(backend: str, teacher_mode: Any) -> None:
    """Two networks on their own losses, each pulled to the other's detached logits."""
    logits = {"fc": {"type": "ModuleOutputs", "source": "fc"}}
    mine, theirs = {"recorder": "fc", "from_student": True}, {"recorder": "fc", "from_student": False}
    spec = {
        "student_recorders": logits,
        "teacher_recorders": logits,
        "distill_losses": {"loss_student": {"type": "KLDivergence"}, "loss_teacher": {"type": "KLDivergence"}},
        "loss_forward_mappings": {
            "loss_student": {"preds_S": mine, "preds_T": theirs},
            "loss_teacher": {"preds_S": theirs, "preds_T": mine},
        },
        "teacher_trainable": True,
        **OWN,
    }
    given: dict[str, Any] = {"x": batch(), "labels": LABELS}
    distiller = fxkd.prepare(
        Net(4),
        Net(6),
        spec,
        example_inputs=given,
        backend=backend,
        teacher_mode=teacher_mode,  # type: ignore[arg-type]
    )
    distiller.eval()
    distiller.train()
    one, other = Net(4), Net(6)
    other.train(teacher_mode != "eval")
    other.norm.train(teacher_mode in (None, "train"))
    a, b = one(batch()), other(batch())
    own, their = F.cross_entropy(a, LABELS), F.cross_entropy(b, LABELS)
    (own + their + kl(a, b) + kl(b, a)).backward()
    out = distiller(**given)
    assert_same([out.student_loss, out.teacher_loss, *out.losses.values()], [own, their, kl(a, b), kl(b, a)])
    out.loss.backward()
    for given_model, expected in ((distiller.student, one), (distiller.teachers["teacher"], other)):
        assert_same([p.grad for p in given_model.parameters()], [p.grad for p in expected.parameters()])
        assert_same(list(given_model.buffers()), list(expected.buffers()))
    assert {name.partition(".")[0] for name in distiller.state_dict()} == {"student", "teacher"}


@BACKENDS
def test_statistics_of_teachers_that_train_go_on_also_where_no_loss_reads_them(backend: str) -> None:
    spec = {"pairs": [pair("first", "wide.first", "L1Loss", student_connector="auto")], "teacher_trainable": True}
    teachers = {"wide": Net(8), "idle": Net(6)}
    distiller = fxkd.prepare(Net(4), teachers, spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    distiller(batch())
    for teacher, width in ((teachers["wide"], 8), (teachers["idle"], 6)):
        expected = Net(width)
        expected(batch())
        assert_same(list(teacher.buffers()), list(expected.buffers()))


@BACKENDS
def test_a_teacher_that_trains_is_copied_with_the_distiller(backend: str) -> None:
    spec = {"pairs": [pair("fc", "fc", "L1Loss")], "teacher_trainable": True}
    distiller = fxkd.prepare(Net(4), Net(6), spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    other = copy.deepcopy(distiller)
    other(batch()).loss.backward()
    assert not trained_names(distiller.teachers["teacher"])
    assert "fc.weight" in trained_names(other.teachers["teacher"])


@BACKENDS
def test_gradients_flow_through_a_frozen_teacher_where_asked(backend: str) -> None:
    student, teacher = Net(4).eval(), Net(6).eval()
    for asked in (False, True):
        x = batch().requires_grad_()
        spec = {"pairs": [pair("fc", "fc", "L1Loss")], "teacher_gradients": asked}
        distiller = fxkd.prepare(student, teacher, spec, example_inputs=(x.detach().requires_grad_(),), backend=backend)  # type: ignore[arg-type]
        (given,) = torch.autograd.grad(distiller(x).loss, x)
        taught = teacher(x) if asked else teacher(x).detach()
        (expected,) = torch.autograd.grad((student(x) - taught).abs().mean(), x)
        assert_same(given, expected)
        assert not any(parameter.requires_grad for parameter in teacher.parameters())


# A student that does not train


@BACKENDS
def test_only_connectors_train_where_the_student_does_not(backend: str) -> None:
    spec = {"pairs": [pair("first", "first", "L1Loss", student_connector="auto")], "student_trainable": False}
    distiller = fxkd.prepare(Net(4), Net(6), spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]
    connector = copy.deepcopy(distiller.connectors.loss_first_student)
    out = distiller(batch())
    expected = (connector(Net(4).first(batch()).detach()) - Net(6).first(batch()).detach()).abs().mean()
    assert_same(out.loss, expected)
    out.loss.backward()
    expected.backward()
    assert_same([p.grad for p in distiller.connectors.parameters()], [p.grad for p in connector.parameters()])
    assert not trained_names(distiller.student)
    assert all(parameter.requires_grad for parameter in distiller.student.parameters())


# What is no teacher


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({}, "teacher: is an empty dict"),
        ({"a.b": Net(4)}, "teacher: has the name 'a.b': a teacher's name is a text without dots"),
        ({"items": Net(4)}, "teacher: has the name 'items'"),
        ({"a": 3}, "teacher: 'a' is a int; give an nn.Module"),
        (Net, "teacher: is the class Net and no object of it"),
    ],
)
def test_what_is_no_teacher(teacher: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fxkd.prepare(Net(4), teacher, {"pairs": [pair("fc", "fc")]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_trainable": "yes"}, "teacher_trainable: is 'yes'; it must be true or false"),
        ({"teacher_mode": "evl"}, "teacher_mode: is 'evl'; there is .*Did you mean 'eval'"),
        ({"stop_epoch": -1}, "stop_epoch: is -1; give the number of epochs"),
        ({"stop_epoch": "3"}, "stop_epoch: is '3'; it must be a whole number or nothing"),
        ({"teacher_ckpt": 3}, "teacher_ckpt: is 3; it must be a text or a mapping or nothing"),
        ({"self_distillation": True, "teacher_ckpt": "a.pth"}, "self_distillation: is true: .*leave out the teacher's"),
        ({"teacher_trainble": True}, "teacher_trainble: unknown key; .*Did you mean 'teacher_trainable'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fxkd.Spec.load({"pairs": [pair("fc", "fc")], **options})


def test_the_spec_decides_the_teachers_mode_unless_prepare_is_told() -> None:
    spec = {"pairs": [pair("fc", "fc")], "teacher_mode": "norm_eval"}
    teacher = Net(6)
    fxkd.prepare(Net(4), teacher, spec)
    assert (teacher.training, teacher.norm.training) == (True, False)
    fxkd.prepare(Net(4), teacher, spec, teacher_mode="eval")
    assert not teacher.training


@BACKENDS
@pytest.mark.parametrize("own", [True, False])
def test_several_teachers_that_train_each_learn_their_own_loss(backend: str, own: bool) -> None:
    class WithLoss(Net):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return logits if own else {"logits": logits, "loss": logits.square().mean()}

    def loss_of(model: Net) -> Tensor:
        found = model(batch())
        return F.cross_entropy(found, LABELS) if own else found["loss"]  # type: ignore[no-any-return]

    teachers, expected = {"wide": WithLoss(8), "deep": WithLoss(6)}, {"wide": WithLoss(8), "deep": WithLoss(6)}
    spec = {**(OWN if own else {}), "teacher_trainable": True, "pairs": [pair("fc", "deep.fc")]}
    given: dict[str, Any] = {"x": batch()} | ({"labels": LABELS} if own else {})
    out = fxkd.prepare(WithLoss(4), teachers, spec, example_inputs=given, backend=backend)(**given)  # type: ignore[arg-type]
    total = loss_of(expected["wide"]) + loss_of(expected["deep"])
    assert_same(out.teacher_loss, total)
    out.teacher_loss.backward()
    total.backward()
    for name, teacher in teachers.items():
        assert_same([p.grad for p in teacher.parameters()], [p.grad for p in expected[name].parameters()])


@pytest.mark.parametrize(("option", "value"), [("teacher_trainable", True), ("teacher_ckpt", "weights.pth")])
def test_a_student_that_is_its_own_teacher_has_no_options_of_one(option: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{option}: is given, but there is no teacher"):
        fxkd.prepare(Net(4), None, {"pairs": [pair("fc", "fc")], option: value})
