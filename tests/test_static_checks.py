"""What does not fit is said by ``prepare``, with its place and what to do, and never at a later step."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import fxkd
from fxkd.broadcast import Broadcasts
from fxkd.errors import SpecError, SpecWarning
from fxkd.fakes import Mistake, Stage, Unseen
from fxkd.unmeant import Warner

HERE = __name__


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(n))


def pair(point: str = "conv", **more: Any) -> dict[str, Any]:
    return {"pairs": [{"student": point, "teacher": point, "loss": {"type": "L2Loss"}, "name": "loss"} | more]}


def problems(spec: Any, student: nn.Module, teacher: nn.Module, example: Any = None) -> tuple[str, ...]:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(student, teacher, spec, example_inputs=batch() if example is None else example)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    return caught.value.problems


# At prepare, in one report


def test_shapes_that_do_not_fit() -> None:
    (found,) = problems(pair(), Net(4), Net(6))
    assert found.startswith(
        "loss_forward_mappings.loss: s_feature is a tensor (2, 4, 4, 4) and t_feature is a tensor (2, 6, 4, 4) "
        "(a connector can change it: 'student_connector: auto'): L2Loss: "
    )


def test_the_advice_is_good() -> None:
    distiller = fxkd.prepare(Net(4), Net(6), pair(student_connector="auto"), example_inputs=batch())
    assert distiller(batch()).loss.requires_grad


def test_a_connector_that_does_not_fit() -> None:
    connector = {"type": "ConvModuleConnector", "in_channel": 5, "out_channel": 6}
    (found,) = problems(pair(student_connector=connector), Net(4), Net(6))
    assert found.startswith(
        "loss_forward_mappings.loss.s_feature: the connector 'loss_student' does not take a tensor (2, 4, 4, 4): "
        "RuntimeError: "
    )
    assert "5 channels" in found


def test_calls_and_shapes_are_one_report() -> None:
    late = {"type": "ModuleOutputs", "source": "fc", "record_idx": 3}
    spec = {"pairs": [*pair()["pairs"], *pair("fc", student=late)["pairs"]]}
    found = problems(spec, Net(4), Net(6))
    assert [text.partition(":")[0] for text in found] == [
        "loss_forward_mappings.loss_2.s_feature.record_idx",
        "loss_forward_mappings.loss",
    ]


@pytest.mark.parametrize("wrong", [False, True])
def test_inputs_of_the_losses_are_checked_by_the_example(wrong: bool) -> None:
    recorders = {"fc": {"type": "ModuleOutputs", "source": "fc"}}
    spec = {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "distill_losses": {"loss": {"type": "DKDLoss"}},
        "loss_forward_mappings": {
            "loss": {
                "preds_S": {"recorder": "fc", "from_student": True},
                "preds_T": {"recorder": "fc", "from_student": False},
                "gt_labels": {"from_input": "labels"},
            }
        },
        "inputs": ["labels"],
    }
    labels = torch.zeros(2 + wrong, dtype=torch.long)
    inputs = {"x": batch(), "labels": labels}
    if wrong:
        (found,) = problems(spec, Net(), Net(), inputs)
        assert "gt_labels is a tensor (3,) of int64" in found
    else:
        distiller = fxkd.prepare(Net(), Net(), spec, example_inputs=inputs)
        assert distiller(**inputs).loss.dim() == 0


class Batch(nn.Module):
    """A loss that counts, keeps what it saw and moves a buffer."""

    seen: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("mean", torch.zeros(5))
        self.norm = nn.BatchNorm1d(5)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += 1
        self.seen = a
        with torch.no_grad():
            self.mean.add_(a.mean(0))
        return (self.norm(a) - b).square().mean()


def custom(loss: nn.Module) -> dict[str, Any]:
    recorders = {"fc": {"type": "ModuleOutputs", "source": "fc"}}
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "distill_losses": {"loss": loss},
        "loss_forward_mappings": {
            "loss": {side: {"recorder": "fc", "from_student": side == "a"} for side in ("a", "b")}
        },
    }


def test_a_loss_is_left_as_it_was() -> None:
    loss = Batch()
    before = copy.deepcopy(loss.state_dict())
    torch.manual_seed(3)
    drawn = torch.rand(1)
    student, teacher = Net(), Net()
    torch.manual_seed(3)
    fxkd.prepare(student, teacher, custom(loss), example_inputs=batch())
    assert torch.equal(torch.rand(1), drawn)
    assert loss.calls == 0
    assert loss.seen is None
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert not isinstance(value, FakeTensor)
    assert not any(isinstance(parameter, FakeTensor) for parameter in loss.parameters())


class Failing(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        raise ValueError("beta must be set first")


def test_what_a_loss_raises_is_told_with_its_place() -> None:
    (found,) = problems(custom(Failing()), Net(), Net())
    assert found == (
        "loss_forward_mappings.loss: a is a tensor (2, 5) and b is a tensor (2, 5): ValueError: beta must be set first"
    )


class HalfCast(nn.Module):
    """Products under autocast take what would else be of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 5)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.map(a) - b).float().square().mean()


def test_types_under_autocast_are_fine_and_without_it_told() -> None:
    student, teacher, half = Net(), Net(), batch().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        distiller = fxkd.prepare(student, teacher, custom(HalfCast()), example_inputs=half)
        assert distiller(half).loss.dtype is torch.float32
    (found,) = problems(custom(HalfCast()), Net().bfloat16(), Net().bfloat16(), half)
    assert "same dtype" in found
    assert "torch.bfloat16, torch.float32" in found


def test_parts_that_are_moved_later_are_no_mistake() -> None:
    """Connectors are made on the CPU; the student may be elsewhere, and the distiller goes there as a whole."""
    student, teacher = Net(4).to("meta"), Net(6).to("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller = fxkd.prepare(
            student, teacher, pair(student_connector="auto"), example_inputs=batch().to("meta"), verify=False
        )
    assert next(distiller.connectors.parameters()).device.type == "cpu"


def test_options_of_all_parts_are_one_report() -> None:
    spec = {
        "pairs": [
            pair(loss={"type": "L2Loss", "mult": "1"})["pairs"][0],
            pair("fc", loss={"type": "KLDivergence", "tau": 0}, name="loss_kl")["pairs"][0],
        ]
    }
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(Net(), Net(), spec)
    places = [text.partition(":")[0] for text in caught.value.problems]
    assert places == ["distill_losses.loss", "distill_losses.loss_kl"]


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.map(x * mask)


class ByKeyword(nn.Module):
    """Gives a module a keyword that depends on its own parameters."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.inner = nn.Linear(3, 4), Weighted()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.inner(x, mask=x.sigmoid())


@pytest.mark.parametrize("how", [{"compile": False}, {"compile": {"backend": "aot_eager", "fullgraph": True}}])
@pytest.mark.parametrize("clone", [True, False])
def test_a_keyword_of_a_record_of_inputs(how: Any, clone: bool) -> None:
    point = {"type": "ModuleInputs", "source": "inner", "data_idx": "mask"}
    spec = {"pairs": [{"student": point, "teacher": point, "loss": {"type": "MeanSq"}, "name": "loss"}]}
    student, teacher, x = ByKeyword(0), ByKeyword(1), torch.randn(5, 3)
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=torch.randn(2, 3), clone_records=clone, **how)
    distiller(x).loss.backward()
    weight = student.first.weight.detach().clone().requires_grad_()
    given = torch.sigmoid(x @ weight.T + student.first.bias.detach())
    wanted = torch.sigmoid(teacher.first(x)).detach()
    expected = (given - wanted).square().mean()
    expected.backward()
    torch.testing.assert_close(distiller(x).loss, expected)
    torch.testing.assert_close(student.first.weight.grad, weight.grad)


@fxkd.loss("MeanSq")
class MeanSq(nn.Module):
    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        return (s - t).square().mean()


LABELLED = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}


def test_labels_of_another_number_in_a_later_capture_are_fine() -> None:
    spec = pair() | {"inputs": ["labels"], "student_loss": LABELLED}
    inputs = {"x": batch(), "labels": torch.zeros(2, dtype=torch.long)}
    distiller = fxkd.prepare(Net(), Net(), spec, example_inputs=inputs)
    for mode in (True, False):
        out = distiller.train(mode)(x=batch(5), labels=torch.ones(5).long())
        assert out.student_loss.dim() == 0
    with pytest.raises(
        SpecError, match=r"student_loss: input is a tensor \(4, 5\) and target is a tensor \(3,\) of int64"
    ):
        fxkd.prepare(Net(), Net(), spec)(batch(4), labels=torch.ones(3).long())


def test_under_no_grad_nothing_is_said_of_training() -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        fxkd.prepare(Net(), Net(), pair(), example_inputs=batch())


# Warnings


def test_a_warning_is_not_repeated_at_a_new_capture_nor_in_copies() -> None:
    frozen = Net().requires_grad_(False)
    with pytest.warns(SpecWarning, match=r"distill_losses.loss: no trainable parameter is reached"):
        distiller = fxkd.prepare(frozen, Net(), pair(), example_inputs=batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (distiller, copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))):
            other.eval()
            other(batch(4))


def test_a_remark_is_one_whatever_the_sizes() -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        warner = Warner()
        for size in (2, 3):
            warner([f"loss: a tensor ({size}, 4) meets one ({size}, 1)", "loss_2: is odd"])
        warner(["loss_3: is odd"])
    said = [str(warning.message) for warning in caught]
    assert said == ["loss: a tensor (2, 4) meets one (2, 1)", "loss_2: is odd", "loss_3: is odd"]


def test_a_stopped_distiller_says_nothing_more() -> None:
    with pytest.warns(SpecWarning, match=r"no trainable parameter is reached") as caught:
        distiller = fxkd.prepare(Net().requires_grad_(False), Net(), pair(), example_inputs=batch())
    distiller.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller(batch(3))
    assert len(caught) == 1


def test_without_example_inputs_the_first_call_warns() -> None:
    distiller = fxkd.prepare(Net().requires_grad_(False), Net(), pair())
    with pytest.warns(SpecWarning, match=r"no trainable parameter is reached") as caught:
        distiller(batch())
    assert caught[0].filename == __file__


def test_a_frozen_backbone_with_a_connector_trains_the_connector() -> None:
    student = Net().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fxkd.prepare(student, Net(6), pair(student_connector="auto"), example_inputs=batch())


def test_the_warning_can_be_silenced_as_others_can() -> None:
    assert issubclass(SpecWarning, UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", r"distill_losses\.loss: no trainable parameter", SpecWarning)
        fxkd.prepare(Net().requires_grad_(False), Net(), pair(), example_inputs=batch())


# The stage


def test_a_twin_has_the_form_and_the_gradient_of_the_original() -> None:
    stage = Stage()
    for tensor in (
        torch.randn(2, 3, requires_grad=True),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(1, 3).expand(4, 3),
        torch.randn(0, 3),
        torch.randn(3, 2).mT,
        torch.arange(3),
    ):
        twin = stage.fresh({"a": (tensor, 3)})["a"][0]
        assert isinstance(twin, FakeTensor)
        assert (twin.shape, twin.stride(), twin.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)
        assert twin.requires_grad is tensor.requires_grad
        assert stage.fresh(tensor, grad=False).requires_grad is False
        assert stage.fresh(tensor, grad=True).requires_grad is tensor.is_floating_point()
        assert not twin.is_leaf or not twin.requires_grad


def test_a_module_may_write_to_what_it_is_given() -> None:
    stage = Stage()
    given = stage.fresh(torch.ones(2, 3, requires_grad=True) * 2)
    assert stage.call(nn.ReLU(inplace=True), given).requires_grad


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_cannot_be_told() -> None:
    stage = Stage()
    with pytest.raises(Unseen):
        stage.fresh(torch.eye(2).to_sparse())
    with pytest.raises(Unseen):
        stage.call(nn.LazyLinear(3), stage.fresh(torch.zeros(2, 3)))
    with pytest.raises(Unseen):
        stage.call(torch.jit.script(nn.ReLU()), stage.fresh(torch.zeros(2)))
    with pytest.raises(Mistake, match="RuntimeError"):
        stage.call(nn.Linear(4, 2), stage.fresh(torch.zeros(2, 3)))


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda s, t: (s - t).square().mean(), [((2, 5), (2, 1))]),
        (lambda s, t: nn.functional.smooth_l1_loss(s.relu(), t), [((2, 5), (2, 1))]),
        (lambda s, t: (t * 2 - s / 3).abs().sum(), [((2, 5), (2, 1))]),
        (lambda s, t: (s - t.expand_as(s)).square().mean(), []),
        (lambda s, t: (s.mean(1, keepdim=True) - t).square().mean(), []),
        (lambda s, t: (s / s.norm(dim=1, keepdim=True)).sum() + t.sum(), []),
        (lambda s, t: s.mean() - t, []),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_broadcasts(loss: Any, found: Any) -> None:
    student, teacher = torch.randn(2, 5), torch.randn(2, 1)
    with Broadcasts([student], [teacher]) as watch:
        loss(student, teacher)
    assert [(tuple(one), tuple(other)) for one, other in watch.found] == found
