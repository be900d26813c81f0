"""``fxkd.check`` finds mistakes without running a model on values: each seeded mistake, its words, no real kernel."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import fxkd
from fxkd.errors import SpecError, SpecWarning
from tests.support.cases import CASES, REAL_CASES

HERE = __name__


class NoRealKernel(TorchDispatchMode):
    """Fail at the end if an operation read or made a tensor with values, whoever caught what came of it.

    The one thing allowed: a number that a constructor writes as ``torch.tensor(0)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves((args, kwargs, value)):
            is_real = isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor) and tensor.device.type != "meta"
            if is_real and not (func is torch.ops.aten.lift_fresh.default and tensor.dim() == 0):
                self.ran.append(str(func))
        return value

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        assert not self.ran, f"ran on values: {', '.join(self.ran)}"


def test_the_watch_sees_a_real_kernel() -> None:
    with pytest.raises(AssertionError, match=r"aten\.add\.Tensor"), NoRealKernel():
        torch.ones(2) + 1


class Mixer:
    """Mixes a batch."""

    def mix(self, x: Tensor) -> Tensor:
        return x.flip(0)

    def wide(self, x: Tensor, width: int) -> Tensor:
        return x.new_ones(x.shape[0], width)


def gate(x: Tensor) -> Tensor:
    return x.sigmoid()


def nobody(x: Tensor) -> Tensor:
    return x


def by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy() * 2)


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.mean((2, 3))


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": x, "sum": x.sum()}


class Net(nn.Module):
    """Stem, two stages of which the second halves the map, a tuple, a dict, a head."""

    def __init__(self, width: int = 8, mixes: int = 1, wide: int = 4) -> None:
        super().__init__()
        self.mixer, self.mixes, self.wide = Mixer(), mixes, wide
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stage = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.two, self.named, self.unused = Two(), Named(), nn.Linear(4, 4)
        self.tokens = nn.Linear(width, width)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.mixes):
            x = self.mixer.mix(x)
        x = self.stem(x)
        x = x + self.tokens(x.flatten(2).mT).mT.reshape(x.shape) + self.mixer.wide(x, self.wide).mean()
        x = self.named(gate(self.stage(x)))["map"]
        return self.fc(self.two(x)[1])


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def pair(student: Any = "stem", teacher: Any = "stem", loss: Any = "L2Loss", **more: Any) -> dict[str, Any]:
    config = {"type": loss} if isinstance(loss, str) else loss
    return {"pairs": [{"student": student, "teacher": teacher, "loss": config, **more}]}


def conv(given: int, wanted: int) -> dict[str, Any]:
    return {"type": "ConvModuleConnector", "in_channel": given, "out_channel": wanted}


def point(source: str, kind: str = "ModuleOutputs", **more: Any) -> dict[str, Any]:
    return {"type": kind, "source": source, **more}


def long(loss: Any = "KLDivergence", **arguments: Any) -> dict[str, Any]:
    """The six keys, one loss of logits; ``arguments`` change its mapping."""
    mapping = {
        "preds_S": {"recorder": "fc", "from_student": True},
        "preds_T": {"recorder": "fc", "from_student": False},
    }
    return {
        "student_recorders": {"fc": point("fc")},
        "teacher_recorders": {"fc": point("fc")},
        "distill_losses": {"loss_kl": {"type": loss} if isinstance(loss, str) else loss},
        "loss_forward_mappings": {"loss_kl": mapping | arguments},
    }


def without(argument: str) -> dict[str, Any]:
    spec = long()
    del spec["loss_forward_mappings"]["loss_kl"][argument]
    return spec


def delivery(method: str, **more: Any) -> dict[str, Any]:
    given = {"type": "MethodOutputs", "method_path": f"{HERE}.Mixer.{method}", **more}
    return pair("fc", "fc") | {"distill_deliveries": {"mixed": given}}


class Distance(nn.Module):
    """A loss without annotations."""

    def __init__(self, finish: Callable[[Tensor], Any] = Tensor.mean) -> None:
        super().__init__()
        self.finish = finish

    def forward(self, a, b):  # type: ignore[no-untyped-def]
        return self.finish((a - b).square())


def ours(finish: Callable[[Tensor], Any] = Tensor.mean, **more: Any) -> dict[str, Any]:
    """A spec with ``Distance``; each of ``more`` changes the reference of that argument."""
    mapping = {
        "a": {"recorder": "s", "from_student": True} | more.pop("a", {}),
        "b": {"recorder": "t", "from_student": False} | more.pop("b", {}),
    }
    return {
        "student_recorders": {"s": point(more.pop("student", "fc"))},
        "teacher_recorders": {"t": point(more.pop("teacher", "fc"))},
        "distill_losses": {"loss_d": Distance(finish)},
        "loss_forward_mappings": {"loss_d": mapping},
        **more,
    }


OWN = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}


class Gated(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Broken(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x))


MISTAKES: dict[str, tuple[Any, list[str]] | tuple[Any, list[str], dict[str, Any]]] = {
    "student path": (pair("stemm"), ["student_recorders.stemm.source", "'stemm'", "'stem'"]),
    "teacher path": (pair("stem", "stage.3"), ["teacher_recorders.stage.3.source", "'stage.3'"]),
    "parameter path": (
        pair(point("fc.wieght", "Parameter"), point("fc.weight", "Parameter")),
        ["student_recorders.fc.wieght.source", "weight"],
    ),
    "recorder type": (pair(point("stem", "ModuleOutput")), ["student_recorders.stem.type", "'ModuleOutputs'"]),
    "loss type": (pair(loss="L2Los"), ["pairs[0].loss.type", "no loss is called 'L2Los'", "'L2Loss'"]),
    "connector type": (
        pair(student_connector={"type": "ConvConnector"}),
        ["connectors.loss_stem_student", "no connector is called 'ConvConnector'"],
    ),
    "argument of a loss": (pair(loss={"type": "KLDivergence", "tua": 4}), ["distill_losses.loss_stem", "'tua'"]),
    "option of a loss": (pair(loss={"type": "KLDivergence", "tau": 0}), ["distill_losses.loss_stem", "tau is 0"]),
    "argument of a connector": (
        pair(student_connector={"type": "LinearConnector", "in_features": 8}),
        ["connectors.loss_stem_student", "'out_features'"],
    ),
    "argument of a mapping": (
        long(pred_S={"recorder": "fc", "from_student": True}),
        ["loss_forward_mappings.loss_kl.pred_S", "'preds_S'"],
    ),
    "missing argument": (without("preds_T"), ["loss_forward_mappings.loss_kl", "'preds_T' of the loss is not mapped"]),
    "missing mapping": (
        long() | {"loss_forward_mappings": {}},
        ["distill_losses.loss_kl", "no entry in loss_forward_mappings"],
    ),
    "mapping without a loss": (
        long() | {"distill_losses": {}},
        ["loss_forward_mappings.loss_kl", "no loss of that name"],
    ),
    "undefined connector": (
        long(preds_S={"recorder": "fc", "from_student": True, "connector": "fit"}),
        ["loss_forward_mappings.loss_kl.preds_S.connector", "'fit' is not in connectors"],
    ),
    "undefined recorder": (
        long(preds_S={"recorder": "logits", "from_student": True}),
        ["loss_forward_mappings.loss_kl.preds_S.recorder", "'logits' is not in student_recorders"],
    ),
    "shapes without a connector": (
        pair(teacher="stage"),
        ["loss_forward_mappings.loss_stem", "s_feature is a tensor (2, 8, 8, 8)", "'student_connector: auto'"],
    ),
    "shapes in a loss of one's own": (
        ours(student="fc", teacher="stem"),
        ["loss_forward_mappings.loss_d", "a is a tensor (2, 10)", "b is a tensor (2, 16, 8, 8)", "RuntimeError"],
        {"width": 16},
    ),
    "channels into a connector": (
        pair(student_connector=conv(16, 16)),
        ["loss_forward_mappings.loss_stem.s_feature", "connector 'loss_stem_student' does not take", "(2, 8, 8, 8)"],
    ),
    "channels out of a connector": (
        pair(student_connector=conv(8, 12)),
        ["loss_forward_mappings.loss_stem", "(2, 12, 8, 8)", "(2, 16, 8, 8)"],
        {"width": 16},
    ),
    "width into a linear connector": (
        pair("fc", "fc", student_connector={"type": "LinearConnector", "in_features": 9, "out_features": 10}),
        ["loss_forward_mappings.loss_fc.s_feature", "(2, 10)", "in_features, 9"],
    ),
    "record_idx": (
        pair(point("stem", record_idx=1)),
        ["loss_forward_mappings.loss_stem.s_feature.record_idx", "is 1", "once"],
    ),
    "data_idx of a tuple": (
        pair(point("two", data_idx=2), point("two", data_idx=1)),
        ["loss_forward_mappings.loss_two.s_feature", "data_idx=2", "tuple of 2", "use 0 to 1"],
    ),
    "data_idx of a dict": (
        pair(point("named", data_idx="mop"), point("named", data_idx="map")),
        ["loss_forward_mappings.loss_named.s_feature", "data_idx='mop'", "Did you mean 'map'"],
    ),
    "data_idx of a tensor": (
        pair(point("stem", data_idx=0)),
        ["loss_forward_mappings.loss_stem.s_feature", "leave data_idx out"],
    ),
    "connector_idx": (
        ours(
            a={"connector": "halves", "connector_idx": 2},
            connectors={"halves": Two()},
            student="stem",
            teacher="stem",
        ),
        ["loss_forward_mappings.loss_d.a.connector_idx", "is 2", "a tuple of 2"],
    ),
    "a tuple for a loss": (
        pair("two", "two"),
        ["loss_forward_mappings.loss_two.s_feature", "a tuple of 2", "'data_idx: 0' to 1"],
    ),
    "a dict for a loss": (
        pair("named", "named"),
        ["loss_forward_mappings.loss_named.t_feature", "a dict with 'map', 'sum'", "'data_idx: map'"],
    ),
    "a tuple for a loss without annotations": (
        ours(student="two", teacher="two"),
        ["loss_forward_mappings.loss_d", "a is a tuple of 2", "TypeError", "'data_idx: 0' to 1"],
    ),
    "a tuple for a connector": (
        pair("two", student_connector=conv(16, 8)),
        ["loss_forward_mappings.loss_two.s_feature", "does not take a tuple of 2", "'data_idx: 0' to 1"],
    ),
    "never called": (pair("unused"), ["student_recorders.unused.source", "does not call it"]),
    "function path": (
        pair(point(f"{HERE}.gat", "FunctionOutputs"), point(f"{HERE}.gate", "FunctionOutputs")),
        ["student_recorders.", "no 'gat'", "'gate'"],
    ),
    "function that nobody calls": (
        pair(point(f"{HERE}.nobody", "FunctionOutputs"), point(f"{HERE}.gate", "FunctionOutputs")),
        [f"'{HERE}.nobody' exists, but the student does not call it"],
    ),
    "method path": (delivery("mixx"), ["distill_deliveries.mixed.method_path", "'mix'"]),
    "delivery type": (
        pair() | {"distill_deliveries": {"mixed": {"type": "MethodOutput"}}},
        ["distill_deliveries.mixed.type", "'MethodOutputs'"],
    ),
    "fewer given than taken": (
        delivery("mix", max_keep_data=2),
        ["distill_deliveries.mixed", "2 times, the student 3 times"],
        {"mixes": 2, "student": {"mixes": 3}},
    ),
    "queue": (
        delivery("mix"),
        ["distill_deliveries.mixed.max_keep_data", "is 1", "set it to 2"],
        {"mixes": 2, "student": {"mixes": 2}},
    ),
    "shape of a delivery": (
        delivery("wide"),
        ["distill_deliveries.mixed", "(2, 7) of float32 in the teacher", "(2, 4) of float32 in the student"],
        {"wide": 7},
    ),
    "key of the spec": (pair() | {"distill_loss": {}}, ["distill_loss", "unknown key", "'distill_losses'"]),
    "key of a pair": (pair(connector="auto"), ["pairs[0].connector", "unknown key", "'student_connector'"]),
    "an input that is not declared": (
        long("DKDLoss", gt_labels={"from_input": "label"}),
        ["loss_forward_mappings.loss_kl.gt_labels", "no argument 'label'", "'inputs'"],
    ),
    "labels that do not fit": (
        long("DKDLoss", gt_labels={"from_input": "labels"}) | {"inputs": ["labels"]},
        ["loss_forward_mappings.loss_kl", "gt_labels", "torch.float32", "class indices"],
        {"inputs": {"x": image(), "labels": torch.zeros(2)}},
    ),
    "labels of the student's own loss": (
        pair() | {"inputs": ["labels"], "student_loss": OWN},
        ["student_loss", "input is a tensor (2, 10)", "target is a tensor (3,) of int64"],
        {"inputs": {"x": image(), "labels": torch.zeros(3, dtype=torch.long)}},
    ),
    "the student's own loss": (
        pair() | {"student_loss": {"type": "CrossEntropy", "args": {}}},
        ["student_loss.type", "no loss 'CrossEntropy'"],
    ),
    "types": (
        pair("fc", "fc", teacher_connector={"type": "LinearConnector", "in_features": 10, "out_features": 10}),
        ["loss_forward_mappings.loss_fc.t_feature", "a tensor (2, 10) of float64", "same dtype"],
        {"double": True},
    ),
    "a loss that gives a dict": (
        ours(lambda d: {"d": d}),
        ["distill_losses.loss_d", "gives a dict with 'd'", "a loss gives a tensor"],
    ),
    "a loss that gives nothing": (ours(lambda d: None), ["distill_losses.loss_d", "gives None"]),
    "auto on both sides": (
        pair(student_connector="auto", teacher_connector="auto"),
        ["loss_forward_mappings.loss_stem.s_feature", "both sides are 'auto'"],
    ),
    "auto between a vector and a map": (
        pair("fc", "stage", student_connector="auto"),
        ["loss_forward_mappings.loss_fc.s_feature", "(2, 10)", "(2, 16, 4, 4)", "on the other side"],
    ),
    "auto with arguments": (
        pair(student_connector={"type": "auto", "bias": False}),
        ["connectors.loss_stem_student", "'auto' takes no arguments", "'bias'"],
    ),
    "a branch on values": (pair(), ["student", "the value of a tensor decides"], {"of": Gated}),
    "a model that does not run": (pair(), ["student", "RuntimeError", "while it ran on tensors"], {"of": Broken}),
    "example inputs": (pair(), ["example_inputs", "is a int"], {"inputs": 5}),
}  # fmt: skip


def models(options: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    student = options.get("of", Net)(**options.get("student", {}))
    teacher = Net(**{key: options[key] for key in ("width", "mixes", "wide") if key in options})
    return student, teacher.double() if options.get("double") else teacher


class Upcast(nn.Module):
    """A teacher in double precision on single-precision images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x.double())


def state(model: nn.Module) -> list[Any]:
    """Everything that a check must not touch."""
    tensors = [
        (tensor, tensor.detach().clone(), tensor.requires_grad) for tensor in model.state_dict(keep_vars=True).values()
    ]
    return [tensors, [(module, module.training, dict(module.__dict__)) for module in model.modules()]]


def assert_untouched(before: list[Any], after: list[Any]) -> None:
    for (one, value, grad), (other, now, grad_now) in zip(before[0], after[0], strict=True):
        assert one is other
        assert torch.equal(value, now)
        assert grad is grad_now
    for (one, *kept), (other, *held) in zip(before[1], after[1], strict=True):
        assert one is other
        assert kept == held


@pytest.mark.parametrize("name", MISTAKES)
def test_a_seeded_mistake_is_found_without_a_real_kernel(name: str) -> None:
    spec, words, options = (*MISTAKES[name], {})[:3]
    student, teacher = models(options)
    if options.get("double"):
        spec = copy.deepcopy(spec)
        spec["pairs"][0]["teacher"], teacher = "inner.fc", Upcast(teacher)
    before = [state(student), state(teacher)]
    inputs, generators = options.get("inputs", image()), (torch.get_rng_state(), random.getstate())
    with NoRealKernel():
        report = fxkd.check(student, teacher, spec, inputs)
    assert not report.ok
    assert len(report.problems) <= 2
    text = "\n".join(report.problems)
    for word in words:
        assert word in text
    assert str(report).startswith(f"{len(report.problems)} problem")
    with pytest.raises(SpecError) as caught:
        report.raise_if_any()
    assert caught.value.problems == report.problems
    for one, other in zip(before, [state(student), state(teacher)], strict=True):
        assert_untouched(one, other)
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1] == random.getstate()


# What is probably unmeant


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Returns(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return {"loss": logits.square().mean(), "logits": logits}


class Column(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


FIT = {"type": "LinearConnector", "in_features": 10, "out_features": 10}
ODD: dict[str, tuple[Any, list[str]] | tuple[Any, list[str], dict[str, Any]]] = {
    "a record without a reader": (
        pair() | {"teacher_recorders": {"extra": point("stage")}},
        ["teacher_recorders.extra", "no loss reads this record", "return_records=True"],
    ),
    "a connector without a use": (
        pair() | {"connectors": {"spare": FIT}},
        ["connectors.spare", "no argument of a loss goes through it", "'connector: spare'"],
    ),
    "an input without a reader": (pair() | {"inputs": ["mask"]}, ["inputs", "'mask'", "'from_input: mask'"]),
    "a name without loss": (
        pair(name="distance"),
        ["distill_losses.distance", "never trained", "'loss_distance'"],
    ),
    "nothing trains": (pair(), ["distill_losses.loss_stem", "no trainable parameter"], {"of": Frozen}),
    "no record of the student": (
        ours(a={"recorder": "t", "from_student": False}) | {"student_recorders": {}},
        ["distill_losses.loss_d", "it reads no record of the student"],
    ),
    "a loss that detaches": (
        ours(lambda d: d.detach().mean()),
        ["distill_losses.loss_d", "no trainable parameter", "or detaches what does"],
    ),
    "broadcasting": (
        ours(b={"connector": "mean"}, connectors={"mean": Column()}),
        ["loss_forward_mappings.loss_d", "(2, 10) of the student", "(2, 1) of the teacher", "element by element"],
    ),
    "double precision": (
        pair("fc", "inner.fc"),
        ["loss_forward_mappings.loss_fc", "float32, float64", ".float()"],
        {"double": True},
    ),
    "a loss that nobody uses": (
        pair() | {"student_loss": {"type": "L1Loss", "args": {n: {"from_input": "x"} for n in ("input", "target")}}},
        ["student_loss", "the student returns 'loss' itself, which nobody uses", "'auto'"],
        {"of": Returns},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_is_probably_unmeant_is_told_by_check_and_by_prepare(name: str) -> None:
    spec, words, options = (*ODD[name], {})[:3]
    student, teacher = models(options)
    teacher, inputs = Upcast(teacher) if options.get("double") else teacher, image()
    with NoRealKernel():
        report = fxkd.check(student, teacher, spec, inputs)
    assert report.ok, report.problems
    (remark,) = report.warnings
    for word in words:
        assert word in remark
    assert f"  - {remark}" in str(report)
    with pytest.warns(SpecWarning) as caught:
        fxkd.prepare(student, teacher, spec, example_inputs=inputs)
    assert [str(warning.message) for warning in caught] == [remark]
    assert caught[0].filename == __file__


class OtherInEval(Net):
    """Never calls a module while it trains, and needs values where it serves."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        if not self.training and float(x.sum()) > 0:
            return self.spare(x)
        return super().forward(x)


def test_example_inputs_are_needed_and_the_first_of_several_is_taken() -> None:
    (problem,) = fxkd.check(Net(), Net(), pair(), None).problems
    assert problem.startswith("example_inputs is a NoneType; give a tuple")
    report = fxkd.check(Net(), Net(), pair(), [image(), 5 * torch.ones(1)])
    assert report.pairs == fxkd.check(Net(), Net(), pair(), image()).pairs


def test_why_a_point_is_never_called_is_found_without_values() -> None:
    student, teacher = OtherInEval(), Net()
    spec = {"student_recorders": {"spare": point("spare")}}
    inputs = image()
    with NoRealKernel():
        report = fxkd.check(student, teacher, spec, inputs, return_records=True)
    (problem,) = report.problems
    assert problem.startswith("student_recorders.spare.source: 'spare' exists, but the student does not call it")
    assert "(in train mode, with these inputs)" in problem


def test_a_teacher_that_nothing_is_asked_of_is_not_captured() -> None:
    spec = {"student_recorders": {"stem": point("stem")}}
    assert fxkd.check(Net(), Gated(), spec, image(), return_records=True).ok
    distiller = fxkd.prepare(Net(), Gated(), spec, example_inputs=image(), return_records=True)
    assert [side.name for side in distiller.programs[0].situations[0].sides] == ["student"]


def test_a_warning_is_given_once_for_both_modes() -> None:
    student = Net().eval()
    with pytest.warns(SpecWarning) as caught:
        distiller = fxkd.prepare(student, Net(), pair(name="distance"), example_inputs=image())
    assert sum(len(program.situations) for program in distiller.programs) == 2
    assert len(caught) == 1


def test_records_that_are_returned_need_no_reader() -> None:
    spec = pair() | {"teacher_recorders": {"extra": point("stage")}}
    assert fxkd.check(Net(), Net(), spec, image(), return_records=True).warnings == ()
    fxkd.prepare(Net(), Net(), spec, example_inputs=image(), return_records=True)


def test_what_is_meant_is_not_told() -> None:
    """A metric without gradients, and a vector broadcast on purpose inside the loss."""

    def centred(d: Tensor) -> Tensor:
        return (d / d.norm(dim=1, keepdim=True)).mean()

    spec = ours(centred)
    spec["distill_losses"]["accuracy"] = Distance(lambda d: d.detach().mean())
    spec["loss_forward_mappings"]["accuracy"] = spec["loss_forward_mappings"]["loss_d"]
    assert fxkd.check(Net(), Net(), spec, image()).warnings == ()


def test_gradients_may_pass_a_named_function() -> None:
    spec = pair(point(f"{HERE}.gate", "FunctionOutputs"), point(f"{HERE}.gate", "FunctionOutputs"))
    assert fxkd.check(Net(), Net(), spec, image()).warnings == ()


# What tensors without values cannot tell


@pytest.mark.parametrize(
    "finish",
    [
        lambda d: d.mean() if d.sum() > 0 else d.sum(),
        lambda d: d[d > 0].mean(),
        lambda d: d.mean() * float(d.detach().numpy().max()),
        lambda d: d.mean() * d.tolist()[0][0],
    ],
)
def test_a_loss_that_looks_at_values_is_no_mistake(finish: Callable[[Tensor], Tensor]) -> None:
    spec, inputs = ours(finish), image()
    student, teacher = Net(), Net()
    with NoRealKernel():
        report = fxkd.check(student, teacher, spec, inputs)
    assert report.ok, report.problems
    assert report.warnings == ()
    fxkd.prepare(student, teacher, spec, example_inputs=inputs)


class ByNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(by_numpy(x))


def test_a_function_that_needs_values_is_seen_at_prepare() -> None:
    path = f"{HERE}.by_numpy"
    spec = pair(point(path, "FunctionOutputs"), point(path, "FunctionOutputs"), name="loss")
    student, teacher, inputs = ByNumpy(), ByNumpy(), image()
    with NoRealKernel():
        report = fxkd.check(student, teacher, spec, inputs)
    assert report.ok
    assert len(report.unseen) == 2
    assert f"what '{path}' gives is seen only on values, when prepare runs the model" in report.unseen[0]
    assert report.pairs == ()
    assert "Seen on values only:" in str(report)


# The report


def test_problems_of_every_kind_are_one_report() -> None:
    spec = {
        "pairs": [
            {"student": "stemm", "teacher": "stem", "loss": {"type": "L2Loss"}},
            {"student": "stem", "teacher": "stage", "loss": {"type": "L2Loss"}},
            {"student": "fc", "teacher": "fc", "loss": {"type": "KLDivergence", "tau": -1}},
            {"student": "unused", "teacher": "stem", "loss": {"type": "L2Loss"}},
            {"student": "fc", "teacher": "fc", "loss": {"type": "L3Loss"}},
        ],
        "distill_deliveries": {"mixed": {"type": "MethodOutputs", "method_path": f"{HERE}.Mixer.mix"}},
    }
    report = fxkd.check(Net(mixes=2), Net(mixes=2), spec, image())
    places = {problem.partition(":")[0] for problem in report.problems}
    assert places == {
        "student_recorders.stemm.source", "loss_forward_mappings.loss_stem", "distill_losses.loss_fc",
        "student_recorders.unused.source", "pairs[4].loss.type", "distill_deliveries.mixed.max_keep_data",
    }  # fmt: skip
    assert len(report.problems) == 6


def test_shapes_and_cost_are_listed() -> None:
    spec = pair("stage", "stage", student_connector="auto", name="loss")
    student, teacher = Net(8), Net(16)
    report = fxkd.check(student, teacher, spec, image())
    rows = [(p.argument, p.source, p.record, p.connector, p.given) for p in report.pairs]
    assert rows == [
        ("s_feature", "student stage", "tensor (2, 16, 4, 4)", "loss_student", "tensor (2, 32, 4, 4)"),
        ("t_feature", "teacher stage", "tensor (2, 32, 4, 4)", "", "tensor (2, 32, 4, 4)"),
    ]
    costs = {cost.part: cost for cost in report.costs}
    # Two operations for each product, N = 2: 8x8 positions of the stem and the tokens, 4x4 of the stage.
    by_hand = {
        w: 2 * 2 * (64 * 27 * w + 64 * w * w + 16 * 9 * w * 2 * w + 2 * w * 10) for w in (8, 16)
    }  # fmt: skip
    assert (costs["student"].flops, costs["student"].flops_left) == (by_hand[8], by_hand[8])
    assert (costs["teacher"].flops, costs["teacher"].flops_left) == (by_hand[16], by_hand[16] - 2 * 2 * 32 * 10)
    assert costs["student"].parameters == sum(p.numel() for p in student.parameters())
    assert costs["teacher"].parameters == sum(p.numel() for p in teacher.parameters())
    kept = [teacher.stem, teacher.tokens, teacher.stage]
    assert costs["teacher"].parameters_left == sum(p.numel() for module in kept for p in module.parameters())
    assert (costs["connectors"].parameters, costs["connectors"].flops) == (16 * 32 + 32, 2 * 2 * 16 * 16 * 32)
    assert {"teacher fc", "teacher two"} <= set(report.pruned)
    assert not [name for name in report.pruned if name.startswith("student")]
    assert "s_feature  student stage  tensor (2, 16, 4, 4)" in str(report)


def test_a_report_is_the_same_every_time_and_is_frozen() -> None:
    student, teacher, inputs = Net(), Net(), image()
    first, second = (fxkd.check(student, teacher, pair(), inputs) for _ in range(2))
    assert str(first) == str(second)
    with pytest.raises(AttributeError):
        first.problems = ()  # type: ignore[misc]


def test_models_run_a_few_times_only() -> None:
    student, teacher, ran = Net(), Net(), []
    for model in (student, teacher):
        model.stem.register_forward_pre_hook(lambda module, args: ran.append(module))
    fxkd.check(student, teacher, pair(), image())
    assert len(ran) <= 6  # recorded, recorded again, counted


def test_a_student_in_eval_mode_is_checked_as_it_trains() -> None:
    student, teacher, inputs = Net().eval(), Net(), image()
    before = [state(student), state(teacher)]
    with NoRealKernel():
        assert fxkd.check(student, teacher, pair(), inputs).ok
    for one, other in zip(before, [state(student), state(teacher)], strict=True):
        assert_untouched(one, other)


def test_modules_given_in_a_spec_are_left_as_they_were() -> None:
    norm, inputs = nn.BatchNorm2d(8), image()
    loss = Distance()
    spec = ours(a={"connector": "norm"}, connectors={"norm": norm}, student="stem", teacher="stem")
    spec["distill_losses"] = {"loss_d": loss}
    before = [state(norm), state(loss)]
    student, teacher = Net(), Net()
    with NoRealKernel():
        assert fxkd.check(student, teacher, spec, inputs).ok
    for one, other in zip(before, [state(norm), state(loss)], strict=True):
        assert_untouched(one, other)


@pytest.mark.parametrize("source", [{"pairs": "stem"}, [1], "nowhere.yaml"])
def test_what_is_no_spec(source: Any) -> None:
    (problem,) = fxkd.check(Net(), Net(), source, image()).problems
    assert any(words in problem for words in ("give a list of pairs", "a spec is a mapping", "there is no such file"))


@pytest.mark.parametrize(
    ("name", "spec"), [(name, next(iter(case.specs))) for name, case in (CASES | REAL_CASES).items()]
)
def test_what_is_right_is_found_right(name: str, spec: str) -> None:
    case = (CASES | REAL_CASES)[name]
    student, teacher, inputs = case.build_student(), case.build_teacher(), fxkd.Inputs(*case.inputs(2))
    with NoRealKernel():
        report = fxkd.check(student, teacher, case.specs[spec], inputs)
    assert report.problems == report.warnings == report.unseen == ()
    for cost in report.costs[:2]:
        assert cost.flops_left is not None
        assert cost.flops is not None
        assert 0 < cost.flops_left <= cost.flops
    with FlopCounterMode(display=False) as counter:
        teacher.eval()(*inputs.args, **inputs.kwargs)
    assert report.costs[1].flops == counter.get_total_flops()  # torch's own count, on values


def test_what_is_no_model() -> None:
    assert fxkd.check(Net(), "teacher", pair(), image()).problems == (  # type: ignore[arg-type]
        "teacher: is a str; give an nn.Module, a dict of several by name, or None",
    )
