"""A distiller is an ordinary module: its output, state, modes, copies, and both backends alike."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxkd
from fxkd.errors import CaptureError, FxkdError, SpecError
from tests.support.oracle import assert_same, run_with_hooks, seed_everything

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


class Net(nn.Module):
    """A norm, a dropout, two layers."""

    def __init__(self, width: int = 6, finish: Callable[[Tensor], Any] | None = None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(width, 3)
        self.finish = finish or same

    def forward(self, x: Tensor) -> Any:
        return self.finish(self.head(self.dropout(self.body(x))))


def same(logits: Tensor) -> Tensor:
    return logits


def as_dict(logits: Tensor) -> dict[str, Tensor]:
    return {"loss": logits.square().mean(), "logits": logits}


def as_losses(logits: Tensor) -> dict[str, Tensor]:
    return {"loss_a": logits.square().mean(), "b_loss": logits.abs(), "number": logits.sum()}


def as_features(logits: Tensor) -> dict[str, Tensor]:
    return {"features": logits}


RECORDERS = {
    "feat": {"type": "ModuleOutputs", "source": "body.1"},
    "fc": {"type": "ModuleOutputs", "source": "head"},
}
SPEC: dict[str, Any] = {
    "student_recorders": RECORDERS,
    "teacher_recorders": RECORDERS,
    "connectors": {"wide": {"type": "LinearConnector", "in_features": 6, "out_features": 8}},
    "distill_losses": {"loss_feat": {"type": "L2Loss"}, "loss_kl": {"type": "KLDivergence", "tau": 2}},
    "loss_forward_mappings": {
        "loss_feat": {
            "s_feature": {"recorder": "feat", "from_student": True, "connector": "wide"},
            "t_feature": {"recorder": "feat", "from_student": False},
        },
        "loss_kl": {
            "preds_S": {"recorder": "fc", "from_student": True},
            "preds_T": {"recorder": "fc", "from_student": False},
        },
    },
}  # fmt: skip


def batch(n: int = 5) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def prepared(
    spec: Any = SPEC, *, student: nn.Module | None = None, teacher: nn.Module | None = None, **options: Any
) -> fxkd.Distiller:
    torch.manual_seed(2)
    return fxkd.prepare(student or Net(), teacher or Net(8, seed=1), spec, **options)


# The output


@BACKENDS
def test_fields_and_attributes(backend: str) -> None:
    out = prepared(backend=backend)(batch())
    assert isinstance(out, fxkd.DistillOutput)
    assert list(out) == ["loss", "student_loss", "losses", "output", "records"]
    assert out.loss is out["loss"]
    assert_same(out.loss, out.losses["loss_feat"] + out.losses["loss_kl"])
    assert out.student_loss is None
    assert out.records is None
    assert out.output.shape == (5, 3)


def test_an_unknown_attribute_says_what_there_is() -> None:
    out = prepared()(batch())
    with pytest.raises(AttributeError, match=r"a DistillOutput has 'loss', 'student_loss'.*no 'los'"):
        _ = out.los
    assert not hasattr(out, "logits")


def test_logits_of_the_students_output() -> None:
    out = prepared(student=Net(finish=as_dict))(batch())
    assert out.logits is out.output["logits"]
    assert not hasattr(prepared(student=Net(finish=as_features))(batch()), "logits")


def test_the_output_is_a_pytree() -> None:
    out = prepared(return_records=True)(batch())
    leaves, form = pytree.tree_flatten(out)
    again = pytree.tree_unflatten(leaves, form)
    assert type(again) is fxkd.DistillOutput
    assert again.losses["loss_kl"] is out.losses["loss_kl"]
    doubled = pytree.tree_map_only(Tensor, lambda tensor: tensor * 2, out)
    assert_same(doubled.loss, out.loss * 2)
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(out)[0]]
    assert "['losses']['loss_kl']" in paths


@pytest.mark.parametrize("copied", [copy.copy, lambda out: pickle.loads(pickle.dumps(out))])
def test_the_output_can_be_copied(copied: Callable[[Any], Any]) -> None:
    out = pytree.tree_map_only(Tensor, Tensor.detach, prepared()(batch()))
    again = copied(out)
    assert type(again) is fxkd.DistillOutput
    assert_same(dict(out), dict(again))


@BACKENDS
def test_the_output_may_be_left_out(backend: str) -> None:
    student = Net()
    distiller = prepared(SPEC | {"return_output": False}, student=student, backend=backend)
    out = distiller(batch())
    assert out.output is None
    out.loss.backward()
    assert student.head.weight.grad is not None


def test_without_its_output_a_students_head_that_no_loss_reads_is_pruned() -> None:
    spec = {"pairs": [{"student": "body", "teacher": "body", "loss": {"type": "L2Loss"}}], "return_output": False}
    distiller = prepared(spec, teacher=Net(seed=1), example_inputs=(batch(),))
    targets = [str(node.target) for node in distiller.graph_module.graph.nodes]
    assert "student.body" in targets
    assert "student.head" not in targets
    assert "teacher.head" not in targets


@BACKENDS
@pytest.mark.parametrize("clone", [True, False])
def test_records(backend: str, clone: bool) -> None:
    student = Net()
    distiller = prepared(student=student, return_records=True, clone_records=clone, backend=backend)
    distiller.eval()
    records = distiller(batch()).records
    assert {side: list(found) for side, found in records.items()} == {
        "student": ["feat", "fc"],
        "teacher": ["feat", "fc"],
    }
    norm = student.body[1](student.body[0](batch()))
    assert_same(norm if clone else norm.relu(), records["student"]["feat"][0], 1e-5)  # ReLU works in place
    assert records["student"]["feat"][0].requires_grad
    assert not records["teacher"]["feat"][0].requires_grad


# The student's own loss


@BACKENDS
def test_a_loss_that_the_student_returns(backend: str) -> None:
    out = prepared(student=Net(finish=as_dict), backend=backend)(batch())
    assert_same(out.student_loss, out.output["loss"])
    assert_same(out.loss, out.student_loss + out.losses["loss_feat"] + out.losses["loss_kl"])


@BACKENDS
def test_losses_that_the_student_returns(backend: str) -> None:
    out = prepared(student=Net(finish=as_losses), backend=backend)(batch())
    assert_same(out.student_loss, out.output["loss_a"] + out.output["b_loss"].mean())


@BACKENDS
def test_the_students_loss_may_be_left_out(backend: str) -> None:
    out = prepared(SPEC | {"student_loss": False}, student=Net(finish=as_dict), backend=backend)(batch())
    assert out.student_loss is None
    assert_same(out.loss, out.losses["loss_feat"] + out.losses["loss_kl"])


OWN = {
    "type": "CrossEntropyLoss",
    "args": {"input": "from_output", "target": {"from_input": "labels"}},
    "weight": 0.5,
    "label_smoothing": 0.1,
}


@BACKENDS
@pytest.mark.parametrize("example", [True, False])
def test_a_loss_of_logits_and_labels(backend: str, example: bool) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    inputs = {"example_inputs": {"x": batch(2), "labels": labels[:2]}} if example else {}
    distiller = prepared(SPEC | {"inputs": ["labels"], "student_loss": OWN}, backend=backend, **inputs)
    out = distiller(batch(), labels=labels) if not example else distiller(x=batch(), labels=labels)
    expected = nn.functional.cross_entropy(out.output, labels, label_smoothing=0.1) * 0.5
    assert_same(expected, out.student_loss)
    assert_same(out.loss, out.student_loss + out.losses["loss_feat"] + out.losses["loss_kl"])


@BACKENDS
def test_a_loss_with_a_weight_of_its_own_class(backend: str) -> None:
    class WithLabels(nn.Module):
        def forward(self, a: Tensor, labels: Tensor) -> Tensor:
            return (a.argmax(1) == labels).double().mean()

    spec = copy.deepcopy(SPEC) | {"inputs": ["labels"]}
    spec["distill_losses"]["accuracy"] = WithLabels()
    spec["loss_forward_mappings"]["accuracy"] = {
        "a": {"recorder": "fc", "from_student": True},
        "labels": {"from_input": "labels"},
    }
    out = prepared(spec, backend=backend)(batch(), labels=torch.zeros(5, dtype=torch.long))
    assert_same(out.losses["accuracy"], (out.output.argmax(1) == 0).double().mean())
    assert_same(out.loss, out.losses["loss_feat"] + out.losses["loss_kl"])  # a metric is not trained


@BACKENDS
def test_nothing_to_train_on(backend: str) -> None:
    spec = {"student_recorders": {"head": {"type": "ModuleOutputs", "source": "head"}}}
    out = prepared(spec, backend=backend, return_records=True)(batch())
    assert out.loss is None
    assert out.losses == {}
    assert out.output.shape == (5, 3)


# State


@BACKENDS
def test_parameters_and_state_dict(backend: str) -> None:
    student, teacher = Net(), Net(8)
    distiller = prepared(student=student, teacher=teacher, backend=backend)
    distiller(batch())
    expected = {f"student.{name}" for name in student.state_dict()} | {
        f"connectors.wide.{name}" for name in distiller.connectors["wide"].state_dict()
    }
    assert set(distiller.state_dict()) == expected
    assert {name for name, _ in distiller.named_parameters()} == expected - {
        name for name in expected if "running" in name or "tracked" in name
    }
    assert distiller.student is student
    assert distiller.teachers == {"teacher": teacher}
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in distiller.parameters()}
    assert not any("teacher" in name for name, _ in distiller.named_modules())


@BACKENDS
def test_learnable_losses_are_held(backend: str) -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, a: Tensor) -> Tensor:
            return self.scale * a.square().mean()

    spec = copy.deepcopy(SPEC)
    spec["distill_losses"]["loss_own"] = Learned()
    spec["loss_forward_mappings"]["loss_own"] = {"a": {"recorder": "fc", "from_student": True}}
    distiller = prepared(spec, backend=backend)
    distiller(batch()).loss.backward()
    assert "losses.loss_own.scale" in distiller.state_dict()
    assert distiller.losses["loss_own"].scale.grad is not None


@BACKENDS
def test_a_checkpoint_goes_back(backend: str) -> None:
    first, second = prepared(backend=backend), prepared(student=Net(seed=9), backend=backend)
    assert second.load_state_dict(first.state_dict(), strict=True).missing_keys == []
    first.eval(), second.eval()
    assert_same(first(batch()).loss, second(batch()).loss)


@pytest.mark.parametrize("assign", [False, True])
def test_weights_loaded_after_capture_are_seen(assign: bool) -> None:
    distiller = prepared(example_inputs=(batch(),)).eval()
    distiller(batch())
    other = prepared(student=Net(seed=9), backend="eager").eval()
    distiller.load_state_dict(other.state_dict(), assign=assign)
    assert_same(other(batch()).output, distiller(batch()).output)


@BACKENDS
def test_the_teacher_is_frozen_and_serves(backend: str) -> None:
    teacher = Net(8).train()
    distiller = prepared(teacher=teacher, backend=backend)
    for mode in (True, False, True):
        assert distiller.train(mode) is distiller
        assert not any(module.training for module in teacher.modules())
        assert all(module.training is mode for module in distiller.student.modules())
    assert distiller.eval() is distiller
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distiller.train()
    distiller(batch()).loss.backward()
    assert_same(before, dict(teacher.state_dict()))
    assert all(parameter.grad is None for parameter in teacher.parameters())


@BACKENDS
def test_shared_parameters_are_not_frozen(backend: str) -> None:
    student, teacher = Net(8), Net(8)
    teacher.head.weight = student.head.weight
    spec = copy.deepcopy(SPEC)
    spec["connectors"]["wide"]["in_features"] = 8
    distiller = prepared(spec, student=student, teacher=teacher, backend=backend)
    assert student.head.weight.requires_grad
    assert not teacher.head.bias.requires_grad
    distiller(batch()).loss.backward()
    assert student.head.weight.grad is not None


@BACKENDS
def test_a_shared_module_keeps_the_students_mode(backend: str) -> None:
    student, teacher = Net(8), Net(8)
    teacher.body = student.body
    spec = copy.deepcopy(SPEC)
    spec["connectors"]["wide"]["in_features"] = 8
    distiller = prepared(spec, student=student, teacher=teacher, backend=backend, example_inputs=(batch(),))
    distiller.train()
    for _ in range(2):
        out = distiller(batch())
    assert out.output.shape == (5, 3)
    assert all(module.training for module in student.modules())


@BACKENDS
def test_moving_moves_the_teacher_along(backend: str) -> None:
    distiller = prepared(backend=backend, example_inputs=(batch(),)).eval()
    expected = distiller(batch())
    assert distiller.to(torch.float64) is distiller
    assert {p.dtype for p in distiller.teachers["teacher"].parameters()} == {torch.float64}
    assert {p.dtype for p in distiller.parameters()} == {torch.float64}
    out = distiller(batch().double())
    assert out.loss.dtype == torch.float64
    assert_same(expected.loss.double(), out.loss, 1e-4)
    assert not distiller.teachers["teacher"].training
    assert not any(p.requires_grad for p in distiller.teachers["teacher"].parameters())


def test_moving_captures_anew() -> None:
    distiller = prepared(example_inputs=(batch(),))
    assert len(distiller.programs) == 1
    distiller.double()
    assert distiller.programs == []
    with pytest.raises(CaptureError, match="captured in this mode yet: call the distiller once"):
        _ = distiller.graph_module


# Modes


@BACKENDS
def test_train_and_eval_equal_hooks(backend: str) -> None:
    student, teacher = Net(), Net(8, seed=1)
    own, own_teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    distiller = prepared(student=student, teacher=teacher, backend=backend, example_inputs=(batch(2),))
    parts = copy.deepcopy(distiller.connectors), copy.deepcopy(distiller.losses)
    for mode in (True, False, True):
        distiller.train(mode)
        own.train(mode)
        seed_everything(3)
        expected = run_with_hooks(own, own_teacher, SPEC, (batch(),), {}, *parts, always_copy=backend == "eager")
        seed_everything(3)
        found = distiller(batch())
        assert_same([expected.loss, expected.losses, expected.output], [found.loss, found.losses, found.output], 1e-5)
        assert_same(dict(own.named_buffers()), dict(student.named_buffers()), 1e-5)


def test_a_student_in_eval_is_captured_as_it_trains_too() -> None:
    student = Net().eval()
    distiller = prepared(student=student, example_inputs=(batch(),))
    assert not any(module.training for module in student.modules())
    assert not distiller.training
    count = len(distiller.programs)
    distiller.train()
    distiller(batch())
    assert len(distiller.programs) == count


@BACKENDS
@pytest.mark.parametrize("example", [True, False])
def test_a_partially_frozen_student_stays_so(backend: str, example: bool) -> None:
    student = Net().train()
    student.body[1].eval()
    student.head.requires_grad_(False)
    inputs = {"example_inputs": (batch(),)} if example else {}
    distiller = prepared(student=student, backend=backend, **inputs)
    assert not student.body[1].training, "prepare changed a mode that the user had set"
    assert student.body[0].training
    before = student.body[1].running_mean.clone()
    distiller(batch()).loss.backward()
    assert torch.equal(student.body[1].running_mean, before)
    assert student.head.weight.grad is None
    assert not student.head.weight.requires_grad


def test_a_part_frozen_after_capture_is_seen() -> None:
    student = Net().train()
    distiller = prepared(student=student, example_inputs=(batch(),))
    student.body[1].eval()
    before = student.body[1].running_mean.clone()
    distiller(batch())
    assert torch.equal(student.body[1].running_mean, before)


# Copies


@BACKENDS
@pytest.mark.parametrize("called", [True, False])
def test_a_deepcopy_is_independent_and_shares_the_teacher(backend: str, called: bool) -> None:
    distiller = prepared(backend=backend)
    distiller.eval()
    expected = distiller(batch()).loss if called else None
    again = copy.deepcopy(distiller)
    assert again.teachers["teacher"] is distiller.teachers["teacher"]
    assert again.student is not distiller.student
    assert not {id(p) for p in again.parameters()} & {id(p) for p in distiller.parameters()}
    if expected is not None:
        assert_same(expected, again(batch()).loss)
    with torch.no_grad():
        again.student.head.weight.zero_()
        again.student.head.bias.zero_()
    assert not again(batch()).output.any()
    assert distiller(batch()).output.any()


@BACKENDS
def test_a_pickle_gives_the_same(backend: str) -> None:
    distiller = prepared(backend=backend, example_inputs=(batch(),)).eval()
    expected = distiller(batch())
    again = pickle.loads(pickle.dumps(distiller))
    assert_same(expected.loss, again(batch()).loss)
    assert set(again.state_dict()) == set(distiller.state_dict())
    assert not any(p.requires_grad for p in again.teachers["teacher"].parameters())


# Compilation


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_equals_eager() -> None:
    eager, compiled = prepared(), prepared(compile={"backend": "aot_eager", "fullgraph": True})
    results = []
    for distiller in (eager, compiled):
        seed_everything(1)
        out = distiller(batch())
        out.loss.backward()
        grads = {name: parameter.grad for name, parameter in distiller.named_parameters()}
        results.append({"loss": out.loss.detach(), "output": out.output.detach(), "grads": grads})
    assert_same(*results, 1e-5)
    assert_same(dict(eager.named_buffers()), dict(compiled.named_buffers()), 1e-5)


# Failure


def whole_state(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "flags": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
    }


class Branches(Net):
    """Cannot be captured."""

    def forward(self, x: Tensor) -> Any:
        if x.sum() > 1e9:
            x = x + 1
        return super().forward(x)


FAILURES: dict[str, Callable[[], dict[str, Any]]] = {
    "student": lambda: {"student": Branches()},
    "teacher": lambda: {"teacher": Branches(8)},
    "spec": lambda: {"spec": {"pairs": [{"student": "nothing", "teacher": "head", "loss": {"type": "L2Loss"}}]}},
    "never_called": lambda: {
        "spec": {"distill_deliveries": {"a": {"type": "FunctionOutputs", "func_path": "torch.fft.fft"}}}
    },
    "connector": lambda: {
        "spec": SPEC | {"connectors": {"wide": {"type": "LinearConnector", "in_features": -1, "out_features": "x"}}}
    },
    "option": lambda: {"compile": 5},
    "example": lambda: {"example_inputs": (torch.ones(2, 9),)},
    "example_form": lambda: {"example_inputs": 5},
    "labels": lambda: {"spec": SPEC | {"student_loss": OWN}},
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_prepare_changes_nothing(name: str) -> None:
    options: dict[str, Any] = {"student": Net(), "teacher": Net(8, seed=1), "spec": SPEC, "example_inputs": (batch(),)}
    options |= FAILURES[name]()
    student, teacher = options.pop("student").train(), options.pop("teacher").train()
    student.body[1].eval()
    teacher.body[1].eval()
    student.head.requires_grad_(False)
    before = [whole_state(student), whole_state(teacher)]
    with pytest.raises((FxkdError, RuntimeError, ValueError, TypeError)) as caught:
        fxkd.prepare(student, teacher, **options)
    assert_same(before, [whole_state(student), whole_state(teacher)])
    if name != "connector":  # its sizes are torch's own check
        assert isinstance(caught.value, FxkdError), repr(caught.value)


def test_a_failed_capture_can_be_mended() -> None:
    student, teacher = Branches(), Net(8, seed=1)
    with pytest.raises(CaptureError, match="backend='eager'"):
        prepared(student=student, teacher=teacher, example_inputs=(batch(),))
    prepared(student=student, teacher=teacher, backend="eager")(batch()).loss.backward()
    assert student.head.weight.grad is not None


def test_a_failed_first_call_can_be_mended() -> None:
    distiller = prepared()
    with pytest.raises(CaptureError, match="does not run on these inputs"):
        distiller(torch.ones(2, 9))
    distiller(batch()).loss.backward()


# Small things


def test_a_yaml_file_is_a_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    expected = prepared(SPEC, backend="eager").eval()(batch()).loss
    for spec in (path, str(path), fxkd.Spec.load(SPEC)):
        assert_same(expected, prepared(spec, backend="eager").eval()(batch()).loss)


@pytest.mark.parametrize(
    "example", [lambda: (batch(),), lambda: {"x": batch()}, lambda: fxkd.Inputs((batch(),)), lambda: batch()]
)
def test_forms_of_example_inputs(example: Callable[[], Any]) -> None:
    distiller = prepared(example_inputs=example())
    assert len(distiller.programs) == 1
    assert distiller.graph_module.student is distiller.student


def test_the_graph_is_on_the_very_modules() -> None:
    distiller = prepared(example_inputs=(batch(),))
    assert distiller.graph_module.student is distiller.student
    assert distiller.graph_module.teacher is distiller.teachers["teacher"]
    assert distiller.graph_module.connectors is distiller.connectors


def test_modules_given_in_the_spec_are_used_themselves() -> None:
    connector, loss = nn.Linear(6, 8), nn.MSELoss()
    spec = copy.deepcopy(SPEC)
    spec["connectors"]["wide"] = connector
    spec["distill_losses"]["loss_feat"] = loss
    mapping = spec["loss_forward_mappings"]["loss_feat"]
    spec["loss_forward_mappings"]["loss_feat"] = {"input": mapping["s_feature"], "target": mapping["t_feature"]}
    distiller = prepared(spec)
    assert distiller.connectors["wide"] is connector
    assert distiller.losses["loss_feat"] is loss
    distiller(batch()).loss.backward()
    assert connector.weight.grad is not None


@BACKENDS
def test_an_input_is_missing(backend: str) -> None:
    distiller = prepared(SPEC | {"inputs": ["labels"], "student_loss": OWN}, backend=backend)
    with pytest.raises(SpecError, match=r"inputs: the call must give labels=<tensor>"):
        distiller(batch())


def test_both_backends_have_one_interface() -> None:
    for backend in ("graph", "eager"):
        distiller = prepared(backend=backend, example_inputs=(batch(),), return_records=True)
        assert isinstance(distiller.programs, list)
        assert isinstance(distiller(batch()), fxkd.DistillOutput)
        assert set(distiller.teachers) == {"teacher"}
        assert isinstance(distiller.spec, fxkd.Spec)
        assert "Distiller" in repr(distiller)


def test_the_eager_backend_has_no_graph_and_says_so() -> None:
    distiller = prepared(backend="eager", example_inputs=(batch(),))
    distiller(batch())
    with pytest.raises(FxkdError):
        _ = distiller.graph_module
