"""What ``prepare`` takes beside models and spec, and what a distiller tells about itself."""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

import fxkd
from fxkd.errors import CaptureError, SpecError, SpecWarning
from fxkd.graph_backend import GraphBackend
from tests.support.oracle import assert_same


class Net(nn.Module):
    """Returns its own loss where labels are given."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.body, self.norm, self.drop, self.head = (
            nn.Linear(4, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(drop),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> dict[str, Tensor]:
        logits = self.head(self.drop(self.norm(self.body(x)))) * scale
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


SPEC: dict[str, Any] = {"pairs": [{"student": "head", "teacher": "head", "loss": {"type": "KLDivergence", "tau": 2}}]}
EARLY: dict[str, Any] = {"pairs": [{"student": "body", "teacher": "body", "loss": {"type": "L2Loss"}}]}


def prepared(student: nn.Module | None = None, teacher: nn.Module | None = None, **options: Any) -> fxkd.Distiller:
    options = {"example_inputs": torch.randn(4, 4)} | options
    return fxkd.prepare(student or Net(), teacher or Net(), options.pop("spec", SPEC), **options)


# The teacher's mode


@pytest.mark.parametrize(
    ("mode", "drop", "norm"), [("eval", False, False), ("train", True, True), ("norm_eval", True, False)]
)
def test_teacher_mode(mode: str, drop: bool, norm: bool) -> None:
    distiller = prepared(teacher_mode=mode)
    teacher = distiller.teachers["teacher"]
    for _ in range(2):
        assert (teacher.drop.training, teacher.norm.training) == (drop, norm)
        distiller.eval().train()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_teacher_keeps_its_own_mode() -> None:
    teacher = Net()
    teacher.norm.eval()
    distiller = prepared(teacher=teacher, teacher_mode="own")
    assert (teacher.training, teacher.norm.training) == (True, False)
    distiller.eval()
    assert (teacher.training, teacher.norm.training) == (True, False)


def test_a_teacher_in_train_mode_moves_its_statistics() -> None:
    teacher = Net()
    distiller = prepared(teacher=teacher, teacher_mode="train")
    before = teacher.norm.running_mean.clone()
    distiller(torch.randn(6, 4))
    assert not torch.equal(teacher.norm.running_mean, before)
    assert teacher.norm.num_batches_tracked == 1  # verification left nothing behind


def test_a_pruned_tail_may_draw() -> None:
    """Random numbers that a pruned part of the teacher would have drawn are no difference of the graph."""
    distiller = prepared(Net(0.5), Net(0.5), spec=EARLY, teacher_mode="train")
    assert distiller(torch.randn(5, 4)).loss.requires_grad


# Passes


class Doubled(PassBase):
    """Doubles what the student's head gives."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        graph = graph_module.graph
        head = next(node for node in graph.nodes if node.target == "student.head")
        with graph.inserting_after(head):
            doubled = graph.call_function(torch.mul, (head, 2.0))
        head.replace_all_uses_with(doubled, delete_user_cb=lambda user: user is not doubled)
        return PassResult(graph_module, modified=True)


def test_passes_of_the_user_run_last() -> None:
    student, x = Net().eval(), torch.randn(5, 4)
    distiller = prepared(student, passes=(Doubled(),), verify=False).eval()
    assert_same(student(x)["logits"] * 2, distiller(x).logits)


def test_a_pass_that_changes_what_is_computed_is_found() -> None:
    with pytest.raises(CaptureError, match=r"does not do what the models do: .*verify=False"):
        prepared(passes=(Doubled(),))


# Verification


@pytest.mark.parametrize("verify", ["backward", "forward"])
def test_what_escapes_the_capture_is_found(verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = GraphBackend._run

    def slightly_wrong(self: GraphBackend, program: Any, values: list[Tensor]) -> dict[str, Any]:
        result = run(self, program, values)
        return result | {"output": {"logits": result["output"]["logits"] * 1.01}}

    monkeypatch.setattr(GraphBackend, "_run", slightly_wrong)
    with pytest.raises(CaptureError, match=r"output\['logits'\] is off by .* where values reach .*backend='eager'"):
        prepared(verify=verify)
    assert prepared(verify=False).student is not None


def test_gradients_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    run = GraphBackend._run

    def cut(self: GraphBackend, program: Any, values: list[Tensor]) -> dict[str, Any]:
        result = run(self, program, values)
        bias = self.student.head.bias
        return result | {"loss": result["loss"] + (bias - bias.detach()).sum()}

    monkeypatch.setattr(GraphBackend, "_run", cut)
    with pytest.raises(CaptureError, match=r"the gradient of student\.head\.bias is off by"):
        prepared()
    prepared(verify="forward")


def test_verification_leaves_no_trace() -> None:
    student, teacher = Net(0.5), Net(0.5)
    kept = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    state = torch.get_rng_state()
    prepared(student, teacher, example_inputs={"x": torch.randn(4, 4), "labels": torch.tensor([0, 1, 2, 0])})
    assert torch.equal(torch.get_rng_state(), state) is False  # the inputs above were drawn
    assert_same(kept, (student.state_dict(), teacher.state_dict()))
    assert all(parameter.grad is None for parameter in student.parameters())


def test_the_varied_call_has_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("fxkd.verify.seed_everything", seeds.append)
    prepared()
    assert seeds == [0, 0, 1, 1]  # the models and the graph, on the inputs and on their variation


def test_a_failed_verification_changes_nothing() -> None:
    student, teacher = Net(), Net().train()
    kept = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    with pytest.raises(CaptureError):
        prepared(student, teacher, passes=(Doubled(),))
    assert_same(kept, (student.state_dict(), teacher.state_dict()))
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_further_inputs_are_verified() -> None:
    calls = [torch.randn(4, 4), torch.randn(7, 4), {"x": torch.randn(2, 4), "labels": torch.tensor([0, 1])}]
    distiller = prepared(example_inputs=calls)
    assert len(distiller.programs) == 2


def test_what_cannot_be_verified_is_said() -> None:
    spec = SPEC | {
        "inputs": ["labels"],
        "student_loss": {
            "type": "CrossEntropyLoss",
            "args": {"input": {"from_input": "x"}, "target": {"from_input": "labels"}},
        },
    }
    assert "not verified: the example inputs lack 'labels'" in str(prepared(spec=spec))


def test_models_without_values_are_not_verified() -> None:
    student, teacher, x = Net().to("meta"), Net().to("meta"), torch.randn(4, 4, device="meta")
    assert "not verified: there are no values on the meta device" in str(prepared(student, teacher, example_inputs=x))


class Rows(Net):
    """Takes rows in pairs."""

    def forward(self, x: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> dict[str, Tensor]:
        return super().forward(torch.cat(x.view(-1, 2, 4).unbind(1)), labels, scale=scale)


class Places(Net):
    """Has a place for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> dict[str, Tensor]:
        return super().forward(x + self.places, labels, scale=scale)


class Sparse(Net):
    def forward(self, x: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> dict[str, Tensor]:
        return super().forward(x.to_dense(), labels, scale=scale)


@pytest.mark.parametrize("model", [Rows, Places])
def test_rows_that_cannot_be_added_are_turned_around(model: type[Net]) -> None:
    distiller = prepared(model(), model())
    assert distiller.notes == []
    assert distiller(torch.randn(4, 4)).loss.requires_grad


def test_inputs_without_rows_are_verified_as_they_are() -> None:
    sparse = torch.eye(4).to_sparse()
    assert "verified on the example inputs alone" in str(prepared(Sparse(), Sparse(), example_inputs=sparse))


def test_inputs_that_need_gradients() -> None:
    class Looks(Net):
        def forward(self, x: Tensor, labels: Tensor | None = None, *, scale: float = 1.0) -> dict[str, Tensor]:
            return super().forward(x * 2 if x.requires_grad else x, labels, scale=scale)

    prepared(Looks(), Looks(), example_inputs=torch.randn(4, 4).requires_grad_())


def test_a_batch_of_one_in_eval_mode() -> None:
    distiller = prepared(Net().eval(), example_inputs=torch.randn(1, 4))
    assert "not captured in train mode, until it is called in it" in str(distiller)
    assert distiller(torch.randn(1, 4)).loss is not None


def test_after_the_stop_nothing_is_asked_for() -> None:
    spec = SPEC | {"inputs": ["mask"], "student_loss": False}
    with pytest.warns(SpecWarning, match="mask"):
        distiller = prepared(spec=spec, verify=False)
    distiller.stop()
    assert distiller(torch.randn(3, 4)).loss is None


# What a distiller tells and takes


def test_the_signature_is_the_students() -> None:
    spec = SPEC | {"inputs": ["mask"], "student_loss": False}
    with pytest.warns(SpecWarning, match="no loss reads 'mask'"):
        signature = inspect.signature(prepared(spec=spec, verify=False).forward)
    assert list(signature.parameters) == ["x", "labels", "scale", "mask"]
    assert signature.parameters["labels"].default is None
    copied = copy.deepcopy(prepared())
    assert list(inspect.signature(copied.forward).parameters) == ["x", "labels", "scale"]
    assert copied(torch.randn(3, 4)).loss is not None


def test_print_tells_the_whole_line() -> None:
    spec = {
        "pairs": [
            {
                "student": "body",
                "teacher": "body",
                "loss": {"type": "L2Loss"},
                "student_connector": {"type": "LinearConnector", "in_features": 8, "out_features": 8},
            }
        ]
    }
    lines = str(prepared(spec=spec)).splitlines()
    assert lines[0] == "Distiller"
    for line in (
        "  student: Net, 83 parameters (all trained), train mode",
        "  teacher: Net, 83 parameters (frozen), eval mode",
        "  backend: graph, not compiled (the student is not on CUDA)",
        "    student.body: ModuleOutputs 'body'",
        "    loss_body_student: LinearConnector, 72 parameters (all trained)",
        "    loss_body: L2Loss(s_feature=student.body -> loss_body_student, t_feature=teacher.body)",
        "  student's own loss: none: the student returns none",
    ):
        assert line in lines
    assert any("that feed no loss and no output are pruned" in line for line in lines)


def test_stop_ends_the_distillation() -> None:
    distiller = prepared(example_inputs={"x": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])})
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    assert distiller(x, labels).losses
    distiller.stop()
    teacher_calls: list[nn.Module] = []
    for module in distiller.teachers["teacher"].modules():
        module.register_forward_hook(lambda module, args, output: teacher_calls.append(module))
    plain = copy.deepcopy(distiller.student)
    out = distiller(x, labels)
    assert (out.losses, teacher_calls) == ({}, [])
    assert_same(plain(x, labels)["loss"], out.loss)
    assert "stopped: the teacher does not run" in str(distiller)


def test_a_stopped_distiller_runs_no_teacher_under_hooks_either() -> None:
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    distiller = prepared(backend="eager", example_inputs=None)
    teacher_calls: list[nn.Module] = []
    distiller.teachers["teacher"].register_forward_hook(lambda module, args, output: teacher_calls.append(module))
    distiller(x, labels)
    assert len(teacher_calls) == 1
    distiller.stop()
    assert distiller(x, labels).loss.requires_grad
    assert len(teacher_calls) == 1


class Fading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        return (preds_S - preds_T).square().mean()

    def step(self) -> None:
        self.steps += 1


def test_step_tells_the_losses() -> None:
    recorders = {"head": {"type": "ModuleOutputs", "source": "head"}}
    mapping = {
        "preds_S": {"recorder": "head", "from_student": True},
        "preds_T": {"recorder": "head", "from_student": False},
    }
    spec = {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "distill_losses": {"loss_head": Fading()},
        "loss_forward_mappings": {"loss_head": mapping},
    }
    distiller = prepared(spec=spec)
    distiller.step()
    distiller.step()
    assert distiller.losses["loss_head"].steps == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verify": True}, "verify: is True; there is 'backward', 'forward', False"),
        ({"verify": "backwards"}, "Did you mean 'backward'"),
        ({"teacher_mode": "evall"}, "teacher_mode: is 'evall'; there is 'eval', 'train', 'norm_eval', 'own'"),
        ({"clone_records": 1}, "clone_records: is 1; give True or False"),
        ({"passes": Doubled()}, "passes: is a Doubled; give a tuple of passes"),
        ({"passes": (Doubled,)}, "passes[0]: is"),
        ({"compile": {"modes": "x"}}, "compile.modes: unknown option"),
        ({"example_inputs": []}, "example_inputs is a list"),
    ],
)
def test_mistakes(options: dict[str, Any], words: str) -> None:
    with pytest.raises((SpecError, CaptureError)) as raised:
        prepared(**options)
    assert words in str(raised.value)


def test_all_mistakes_in_one_report() -> None:
    with pytest.raises(SpecError) as raised:
        prepared(verify="no", teacher_mode="no", spec={"pears": []}, teacher=3)
    assert len(raised.value.problems) >= 4
