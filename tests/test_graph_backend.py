"""Programs are found, captured anew where a guard fails, and never run twice or wrongly."""

import copy
import random
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxkd
from fxkd import graph_backend
from fxkd.errors import CaptureError, GuardError
from fxkd.graph_backend import MOST_CAPTURES
from tests.capture.decisions import FREE, GUARDED, Decision
from tests.support.oracle import assert_same, run_with_hooks, seed_everything

SPEC = {
    "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
    "teacher_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
    "distill_losses": {"loss_fc": {"type": "L2Loss"}},
    "loss_forward_mappings": {
        "loss_fc": {
            "s_feature": {"recorder": "fc", "from_student": True},
            "t_feature": {"recorder": "fc", "from_student": False},
        }
    },
}


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def pair(name: str) -> tuple[Decision, Decision]:
    torch.manual_seed(0)
    student = Decision((FREE | GUARDED)[name])
    torch.manual_seed(1)
    return student, Decision((FREE | GUARDED)[name])


def run(call: Any, student: nn.Module) -> dict[str, Any]:
    """Run one step from one seed; give all that may be wrong."""
    seed_everything(4)
    student.zero_grad()
    result = call()
    result.loss.backward()
    return {
        "loss": result.loss.detach(),
        "output": result.output.detach(),
        "gradients": {name: parameter.grad for name, parameter in student.named_parameters()},
        "buffers": {name: buffer.clone() for name, buffer in student.named_buffers()},
        "drawn": (torch.rand(()), random.random()),
    }


DECISIONS = [
    "add", "arange", "greater", "int", "range", "same_shape", "in_tuple", "unbind", "split", "list_index",
]  # fmt: skip  # one of each kind; tests/capture/test_tracked.py has them all


@pytest.mark.parametrize("name", DECISIONS)
def test_captured_at_two_is_right_at_five(name: str) -> None:
    student, teacher = pair(name)
    own, own_teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    distiller = fxkd.prepare(student, teacher, SPEC, example_inputs=(batch(2),))
    losses = {"loss_fc": distiller.losses["loss_fc"]}
    for n in (5, 2, 5):
        expected = run(lambda n=n: run_with_hooks(own, own_teacher, SPEC, (batch(n),), {}, {}, losses), own)
        assert_same(expected, run(lambda n=n: distiller(batch(n)), student), 1e-5)
    assert student.norm.num_batches_tracked == 3
    assert len(distiller.programs) == (1 if name in FREE else 2)


def test_a_guard_that_fails_late_leaves_nothing_half_done() -> None:
    """The norm has run when the size of what a layer gives turns out to be another one."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(functional.dropout(self.norm(x), 0.5, self.training))
            return h * 2 if h.shape[0] > 3 else h

    student = Late()
    own = copy.deepcopy(student)
    distiller = fxkd.prepare(student, Late(), SPEC, example_inputs=(batch(2),))
    seed_everything(4)
    expected, drawn = own(batch(5)), torch.rand(())
    seed_everything(4)
    assert_same(expected, distiller(batch(5)).output)
    assert_same(drawn, torch.rand(()))
    assert_same(dict(own.named_buffers()), dict(student.named_buffers()))
    assert len(distiller.programs) == 2


class Chooses(nn.Module):
    """Decides between values that are both there, so that no node comes after the decision."""

    def __init__(self, seed: int, limit: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.limit = nn.Linear(4, 3), limit

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        doubled = h * 2
        return doubled if h.shape[0] > self.limit else h


@pytest.mark.parametrize("point", ["fc", ""], ids=["layer", "root"])
@pytest.mark.parametrize("limits", [(3, 100), (100, 3), (3, 6)])
def test_a_decision_behind_the_last_layer_counts(limits: tuple[int, int], point: str) -> None:
    recorder = {"fc": {"type": "ModuleOutputs", "source": point}}
    spec = SPEC | {"student_recorders": recorder, "teacher_recorders": recorder}
    models = {"student": Chooses(0, limits[0]), "teacher": Chooses(1, limits[1])}
    distiller = fxkd.prepare(*models.values(), spec, example_inputs=(batch(2),), return_records=True)
    for n in (5, 2, 7, 5):
        out = distiller(batch(n))
        assert_same(models["student"](batch(n)), out.output)
        for side, model in models.items():
            expected = model.fc(batch(n)) if point else model(batch(n))
            assert_same(expected.detach(), out.records[side]["fc"][0].detach())


def test_programs_are_kept_and_found_again() -> None:
    distiller = fxkd.prepare(*pair("greater"), SPEC, example_inputs=(batch(2),))
    assert len(distiller.programs) == 1
    for n, count in ((3, 1), (5, 2), (2, 2), (6, 2), (3, 2)):
        distiller(batch(n))
        assert len(distiller.programs) == count


def test_a_new_form_of_call_is_captured() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
            return self.fc(x) * scale + (0 if mask is None else mask)

    student, teacher = Optional(), Optional()
    distiller = fxkd.prepare(student, teacher, SPEC)
    mask = torch.ones(3)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((batch(2),), {}),
        ((batch(2), 2.0), {}),
        ((batch(2),), {"mask": mask}),
        ((batch(2),), {"mask": mask, "scale": 3.0}),
        ((batch(5),), {}),
    ]
    for args, kwargs in calls:
        assert_same(student(*args, **kwargs), distiller(*args, **kwargs).output)
    assert len(distiller.programs) == 4


def test_a_layer_that_drops_a_mode_is_captured_anew() -> None:
    class Modes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(nn.functional.dropout(x, 0.5, self.training))
            return h if self.training else h * 2

    student = Modes()
    distiller = fxkd.prepare(student, Modes(), SPEC, example_inputs=(batch(2),))
    for train in (True, False, True):
        distiller.train(train)
        seed_everything(1)
        found = distiller(batch(5)).output
        seed_everything(1)
        assert_same(student(batch(5)), found)
    assert len(distiller.programs) == 2


def test_a_number_that_changes_at_every_call_ends_in_a_clear_error() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor, scale: float) -> Tensor:
            return self.fc(x) * scale

    distiller = fxkd.prepare(Scaled(), Scaled(), SPEC)
    backend = distiller._steps()
    distiller(batch(2), 1.0)
    backend.captures = MOST_CAPTURES  # as if so many had been captured
    with pytest.raises(CaptureError, match=r"captured 64 times already.*backend='eager'"):
        distiller(batch(2), 0.5)


class Coin:
    """Tosses."""

    def toss(self) -> bool:
        return random.random() < 0.5


class Tosses(nn.Module):
    """Goes one of two ways, as a named method says."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc, self.coin = nn.Linear(4, 3), Coin()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.fc(x * 2 if self.coin.toss() else x - 1)


@pytest.mark.parametrize("delivered", [False, True])
def test_a_drawn_truth_is_right_or_refused(delivered: bool) -> None:
    student, teacher = Tosses(0), Tosses(1)
    path = f"{__name__}.Coin.toss"
    recorder = {"type": "MethodOutputs", "source": path}
    spec: dict[str, Any] = SPEC | {
        "student_recorders": SPEC["student_recorders"] | {"coin": recorder},
        "teacher_recorders": SPEC["teacher_recorders"] | {"coin": recorder},
    }
    if delivered:
        spec["distill_deliveries"] = {"coin": {"type": "MethodOutputs", "method_path": path, "max_keep_data": 1}}
    refused = [_refused_or_right(student, teacher, spec, seed) for seed in range(8)]
    assert any(refused)


def _refused_or_right(student: nn.Module, teacher: nn.Module, spec: dict[str, Any], seed: int) -> bool:
    """Capture while the coin falls as the seed says; what is not refused is right, what is refused leaves no trace."""
    one, other = copy.deepcopy(student), copy.deepcopy(teacher)
    seed_everything(seed)
    try:
        distiller = fxkd.prepare(student, teacher, spec, example_inputs=(batch(5),))
        seed_everything(seed)
        out = distiller(batch(5))
    except CaptureError as error:
        assert re.search(r"self\.coin\.toss\(\).*backend='eager'", str(error))  # noqa: PT017
        assert_same(dict(one.named_buffers()), dict(student.named_buffers()))
        return True
    seed_everything(seed)
    losses = {"loss_fc": distiller.losses["loss_fc"]}
    expected = run_with_hooks(one, other, spec, (batch(5),), {}, {}, losses)
    assert_same(expected.output, out.output, 1e-5)
    assert_same(expected.loss, out.loss, 1e-5)
    return False


class Raises(nn.Module):
    """Raises in the middle, where gradients are off, as a switch says."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.bad = Bad()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.bad(x)
        return self.fc(x)


class Bad(nn.Module):
    switch = False

    def forward(self, x: Tensor) -> Tensor:
        if Bad.switch:
            raise RuntimeError("on purpose")
        return x * 2


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("where", ["student", "teacher"])
def test_the_grad_mode_is_kept_when_a_model_raises(grad: bool, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Sequential()
    plain.fc = nn.Linear(4, 3)
    models = {"student": Raises(), "teacher": Raises()}
    models["student" if where == "teacher" else "teacher"] = plain
    distiller = fxkd.prepare(models["student"], models["teacher"], SPEC, example_inputs=(batch(2),))
    with torch.set_grad_enabled(grad):
        distiller(batch(3))
        assert torch.is_grad_enabled() is grad
        monkeypatch.setattr(Bad, "switch", True)
        with pytest.raises(RuntimeError, match="on purpose"):
            distiller(batch(3))
        assert torch.is_grad_enabled() is grad
        monkeypatch.setattr(Bad, "switch", False)
        distiller(batch(3))


@pytest.mark.parametrize("function", ["no_grad", "enable_grad"])
def test_the_callers_grad_mode_counts(function: str) -> None:
    distiller = fxkd.prepare(*pair("add"), SPEC, example_inputs=(batch(2),))
    with getattr(torch, function)():
        out = distiller(batch(3))
        assert torch.is_grad_enabled() is (function == "enable_grad")
    assert out.loss.requires_grad is (function == "enable_grad")


def test_the_first_call_under_no_grad_captures_for_training_too() -> None:
    distiller = fxkd.prepare(*pair("add"), SPEC)
    with torch.no_grad():
        distiller(batch(2))
    distiller(batch(2)).loss.backward()
    assert distiller.student.fc.weight.grad is not None


def test_the_first_call_under_autocast_is_right_and_so_is_the_next() -> None:
    student, teacher = pair("add")
    own, own_teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    distiller = fxkd.prepare(student, teacher, SPEC)
    losses = {"loss_fc": distiller.losses["loss_fc"]}
    for enabled in (True, False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            expected = run(lambda: run_with_hooks(own, own_teacher, SPEC, (batch(5),), {}, {}, losses), own)
            assert_same(expected, run(lambda: distiller(batch(5)), student), 1e-5)


def test_labels_that_are_the_input_itself_are_another_argument() -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 7)

        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.table(input_ids)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    ids, labels = torch.tensor([1, 2, 3]), torch.tensor([3, 4, 0])
    student = Language()
    spec = {"student_recorders": {"table": {"type": "ModuleOutputs", "source": "table"}}}
    given = {"input_ids": ids, "labels": ids}
    distiller = fxkd.prepare(student, Language(), spec, example_inputs=given, return_records=True)
    assert_same(student(ids, labels)["loss"], distiller(input_ids=ids, labels=labels).loss)


@pytest.mark.usefixtures("fresh_dynamo")
def test_inside_compile_nothing_is_captured_and_the_error_says_what_to_do() -> None:
    distiller = fxkd.prepare(*pair("add"), SPEC)
    compiled = torch.compile(distiller, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"outside of it|example_inputs") as caught:
        compiled(batch(2))
    chain, error = [], caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert any(isinstance(one, CaptureError) or "call the distiller once" in str(one) for one in chain)


@pytest.mark.usefixtures("fresh_dynamo")
def test_a_guard_that_fails_inside_compile_says_what_to_do() -> None:
    distiller = fxkd.prepare(*pair("greater"), SPEC, example_inputs=(batch(2),))
    compiled = torch.compile(distiller, backend="eager", fullgraph=True)
    compiled(batch(2))
    with pytest.raises(Exception, match="call the distiller once") as caught:
        compiled(batch(5))
    assert caught.value is not None


def test_guards_do_not_swallow_the_models_own_errors() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.fc(x))

    distiller = fxkd.prepare(Own(), Own(), SPEC, example_inputs=(batch(2),))
    with pytest.raises(GuardError, match="mine"):
        distiller(batch(7))


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 7:
            raise GuardError("mine")
        return x


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's, where a compiled region breaks
def test_a_new_size_in_a_region_that_may_break_is_captured_outside_of_it() -> None:
    distiller = fxkd.prepare(*pair("greater"), SPEC, example_inputs=(batch(2),))
    compiled = torch.compile(distiller, backend="eager")
    for n in (2, 6, 2, 6):
        plain = copy.deepcopy(distiller.student)
        seed_everything(n)
        expected = plain(batch(n))
        seed_everything(n)
        assert_same(expected, compiled(batch(n)).output, 1e-5)
    assert len(distiller.programs) == 2


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 3), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


def test_the_oldest_graphs_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that moves now and then is no number that changes at every call."""
    monkeypatch.setattr(graph_backend, "MOST_PROGRAMS", 4)
    distiller = fxkd.prepare(Scaled(), Scaled(), SPEC, example_inputs=(batch(2),), verify=False)
    for epoch in range(8):
        distiller.student.scale = 1.0 + epoch
        assert_same(distiller.student(batch(2)), distiller(batch(2)).output)
    assert len(distiller.programs) == 4


def test_a_refused_try_moves_no_teachers_statistics() -> None:
    student, teacher = pair("greater")
    distiller = fxkd.prepare(student, teacher, SPEC, example_inputs=(batch(2),), teacher_mode="train")
    distiller(batch(5))
    assert teacher.norm.num_batches_tracked == student.norm.num_batches_tracked == 1


def test_hooks_of_a_compiled_leaf_are_seen() -> None:
    distiller = fxkd.prepare(Scaled(), Scaled(), SPEC, example_inputs=(batch(2),), compile={"backend": "aot_eager"})
    distiller(batch(2))
    distiller.student.fc.register_forward_hook(lambda module, args, output: output * 3)
    assert_same(distiller.student(batch(2)), distiller(batch(2)).output)


def test_a_student_that_moves_alone_is_captured_anew() -> None:
    class Typed(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x.to(self.fc.weight.dtype))
            return h + torch.ones(3, dtype=h.dtype)

    distiller = fxkd.prepare(Typed(), Typed(), SPEC, example_inputs=(batch(2),))
    distiller.student.double()
    distiller.teachers["teacher"].double()
    assert distiller(batch(2)).output.dtype is torch.float64
