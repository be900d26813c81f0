"""What only the models show: every point is there, is called, and every delivery fits; all in one report."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import SpecError
from fxkd.passes.insert_deliveries import deliver
from tests.support.oracle import assert_same, seed_everything

HERE = __name__


class Augment:
    """Draws, and mixes a batch."""

    def number(self) -> int:
        return random.randint(1, 10**6)

    def noise(self, x: Tensor) -> Tensor:
        return torch.rand_like(x)

    def wide(self, x: Tensor, width: int) -> Tensor:
        return x.new_ones(x.shape[0], width)

    def pair(self, x: Tensor, both: bool) -> Any:
        return (x, x) if both else x


def mask(x: Tensor) -> Tensor:
    """A function that nobody calls."""
    return x


class Model(nn.Module):
    """Calls its augmentation ``calls`` times before its layers."""

    def __init__(self, width: int = 4, calls: int = 1, seed: int = 0, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.augment, self.calls, self.width, self.both = Augment(), calls, width, both
        self.entry = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        for call in range(self.calls):
            x = x + self.augment.noise(x) * (call + 1)
        x = x + self.augment.wide(x, self.width).mean(1, keepdim=True)
        self.augment.pair(x, self.both)
        return self.fc(x)


def method(name: str, kept: int = 1) -> dict[str, Any]:
    return {"type": "MethodOutputs", "method_path": f"{HERE}.Augment.{name}", "max_keep_data": kept}


LOSS = {"pairs": [{"student": "fc", "teacher": "fc", "loss": {"type": "KLDivergence", "tau": 2}}]}


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def prepared(student: nn.Module, teacher: nn.Module, **spec: Any) -> fxkd.Distiller:
    return fxkd.prepare(student, teacher, LOSS | spec, example_inputs=(batch(),))


def problems(student: nn.Module, teacher: nn.Module, spec: Any, example: Any = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(student, teacher, spec, example_inputs=(batch(),) if example is None else example)
    return list(caught.value.problems)


# Deliveries that fit


@pytest.mark.parametrize("calls", [1, 3])
def test_values_are_delivered_first_in_first_out(calls: int) -> None:
    student, teacher = Model(calls=calls), Model(calls=calls, seed=1)
    distiller = prepared(student, teacher, distill_deliveries={"noise": method("noise", calls)})
    found = [node for node in distiller.graph_module.graph.nodes if node.target is deliver]
    assert [node.args[1:] for node in found] == [("noise", index) for index in range(calls)]
    names = [getattr(node.target, "__name__", "") for node in distiller.graph_module.graph.nodes]
    assert names.count("noise") == calls  # the student's own are gone
    x = batch(5)
    seed_everything(3)
    out = distiller(x)
    seed_everything(3)
    noises = [torch.rand(5, 4) for _ in range(calls)]  # the teacher's, in the order of its calls
    h = student.entry(x)
    for call, noise in enumerate(noises):
        h = h + noise * (call + 1)
    assert_same(student.fc(h + 1), out.output, 1e-5)


def test_a_teacher_may_call_more_often_than_the_student_takes() -> None:
    student, teacher = Model(calls=1), Model(calls=2, seed=1)
    distiller = prepared(student, teacher, distill_deliveries={"noise": method("noise", 2)})
    assert [node.args[2] for node in distiller.graph_module.graph.nodes if node.target is deliver] == [0]


class Drawn(nn.Module):
    """A number from Python's generator, added to a convolution, as a record too."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv1d(1, 2, 3)
        self.augment = Augment()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, None]) + self.augment.number()


NUMBER = {"type": "MethodOutputs", "source": f"{HERE}.Augment.number"}


def test_a_drawn_number_changes_every_step_and_is_recorded_as_an_int() -> None:
    student, teacher = Drawn(0), Drawn(1)
    spec = {
        "student_recorders": {"number": NUMBER, "conv": {"type": "ModuleOutputs", "source": "conv"}},
        "teacher_recorders": {"number": NUMBER},
    }
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=(batch(),), return_records=True)
    seed_everything(1)
    first, second = distiller(batch(5)), distiller(batch(5))
    seed_everything(1)
    drawn = [random.randint(1, 10**6) for _ in range(4)]
    found = [out.records[side]["number"][0] for out in (first, second) for side in ("teacher", "student")]
    assert found == drawn
    assert {type(number) for number in found} == {int}
    for out in (first, second):
        assert_same(out.output, out.records["student"]["conv"][0] + out.records["student"]["number"][0])


def test_a_delivered_number_is_one_in_both_models() -> None:
    student, teacher = Drawn(0), Drawn(1)
    spec = {
        "student_recorders": {"number": NUMBER},
        "teacher_recorders": {"number": NUMBER},
        "distill_deliveries": {"number": method("number")},
    }
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=(batch(),), return_records=True)
    seen = set()
    for _ in range(3):
        records = distiller(batch(5)).records
        assert records["student"]["number"] == records["teacher"]["number"]
        assert type(records["student"]["number"][0]) is int
        seen.add(records["student"]["number"][0])
    assert len(seen) == 3


# Deliveries that do not


def test_more_is_taken_than_given() -> None:
    (message,) = problems(Model(calls=3), Model(calls=2), LOSS | {"distill_deliveries": {"noise": method("noise", 3)}})
    assert message.startswith("distill_deliveries.noise: the teacher calls")
    assert "Augment.noise' 2 times, the student 3 times: the student would wait for values that never come" in message


def test_a_queue_that_is_too_short() -> None:
    (message,) = problems(Model(calls=2), Model(calls=2), LOSS | {"distill_deliveries": {"noise": method("noise")}})
    assert message.startswith("distill_deliveries.noise.max_keep_data: is 1, but the teacher calls")
    assert message.endswith("2 times; set it to 2")


def test_a_path_that_names_nothing() -> None:
    given = method("noise") | {"method_path": f"{HERE}.Augment.nois"}
    (message,) = problems(Model(), Model(), LOSS | {"distill_deliveries": {"noise": given}})
    assert message.startswith("distill_deliveries.noise.method_path: ")
    assert "Did you mean 'noise'" in message


def test_a_point_that_is_never_called() -> None:
    given = {"type": "FunctionOutputs", "func_path": f"{HERE}.mask"}
    found = problems(Model(), Model(), LOSS | {"distill_deliveries": {"mask": given}})
    assert [message.partition(":")[0] for message in found] == ["distill_deliveries.mask"] * 2
    for side, message in zip(("teacher", "student"), found, strict=True):
        assert f"'{HERE}.mask' exists, but the {side} does not call it in its forward" in message


def test_shapes_that_differ() -> None:
    (message,) = problems(Model(4), Model(7), LOSS | {"distill_deliveries": {"wide": method("wide")}})
    assert message.startswith("distill_deliveries.wide: call 0 of")
    assert "(2, 7) of float32 in the teacher" in message
    assert "(2, 4) of float32 in the student" in message


def test_forms_that_differ() -> None:
    spec = LOSS | {"distill_deliveries": {"pair": method("pair")}}
    (message,) = problems(Model(), Model(both=True), spec)
    assert "gives a tuple in the teacher that is built otherwise than in the student" in message


# Recorders and references


def test_a_module_that_is_never_called() -> None:
    pair = {"student": "unused", "teacher": "fc", "loss": {"type": "L2Loss"}}
    (message,) = problems(Model(), Model(), {"pairs": [pair]})
    assert message == (
        "student_recorders.unused.source: 'unused' exists, but the student does not call it in its forward, "
        "neither in train nor in eval mode, with these inputs"
    )


def test_a_path_of_a_recorder_that_names_nothing() -> None:
    (message,) = problems(
        Model(), Model(), {"pairs": [{"student": "fcc", "teacher": "fc", "loss": {"type": "L2Loss"}}]}
    )
    assert message.startswith("student_recorders.fcc.source: no module 'fcc' in Model")
    assert "Did you mean 'fc'" in message


@pytest.mark.parametrize("index", [1, -2])
def test_a_call_that_is_not_made(index: int) -> None:
    pair = {
        "student": {"type": "ModuleOutputs", "source": "fc", "record_idx": index},
        "teacher": "fc",
        "loss": {"type": "L2Loss"},
    }
    (message,) = problems(Model(), Model(), {"pairs": [pair]})
    assert message == (
        f"loss_forward_mappings.loss_fc.s_feature.record_idx: is {index}, but the student calls 'fc' once in a forward "
        "(the first is 0)"
    )


def test_several_problems_are_one_report() -> None:
    found = problems(
        Model(4, calls=3),
        Model(7, calls=2),
        {
            "pairs": [{"student": "unused", "teacher": "unused", "loss": {"type": "L2Loss"}}],
            "distill_deliveries": {"noise": method("noise"), "wide": method("wide")},
        },
    )
    assert [message.partition(":")[0] for message in found] == [
        "student_recorders.unused.source", "teacher_recorders.unused.source", "distill_deliveries.noise",
        "distill_deliveries.noise.max_keep_data", "distill_deliveries.wide",
    ]  # fmt: skip


def test_several_wrong_paths_are_one_report_without_example_inputs() -> None:
    spec = {
        "pairs": [{"student": "fcc", "teacher": "entri", "loss": {"type": "L2Loss"}}],
        "distill_deliveries": {"a": {"type": "ModuleOutputs", "source": "nothing"}},
    }
    with pytest.raises(SpecError) as caught:
        fxkd.prepare(Model(), Model(), spec)
    places = [message.partition(":")[0] for message in caught.value.problems]
    assert places == [
        "student_recorders.fcc.source", "teacher_recorders.entri.source", "distill_deliveries.a.source",
        "distill_deliveries.a.source",
    ]  # fmt: skip


# Models


def test_one_object_as_both_is_refused() -> None:
    model = Model()
    assert problems(model, model, LOSS) == [
        "teacher: is the student itself; give another module (copy.deepcopy makes one), or None for a student that "
        "learns from itself"
    ]


def test_what_is_no_model_is_refused() -> None:
    found = problems(lambda x: x, 1, LOSS)  # type: ignore[arg-type]
    assert found == [
        "teacher: is a int; give an nn.Module, a dict of several by name, or None",
        "student: is a function; give an nn.Module",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "hooks"}, "backend: is 'hooks'; there is 'graph', 'eager'"),
        ({"compile": "yes"}, "compile: is 'yes'; give 'auto', True, False or a dict"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fxkd.prepare(Model(), Model(), LOSS, **options)


def test_a_student_loss_that_is_none_is_refused() -> None:
    for name in ("CrossEntropy", "functional"):
        own = {"type": name, "args": {"input": "from_output"}}
        with pytest.raises(SpecError, match=rf"student_loss.type: torch.nn has no loss '{name}'"):
            fxkd.prepare(Model(), Model(), {"student_loss": own})


def test_options_of_a_student_loss_are_checked() -> None:
    own = {"type": "CrossEntropyLoss", "args": {"input": "from_output"}, "smoothing": 0.1}
    with pytest.raises(SpecError, match="student_loss"):
        fxkd.prepare(Model(), Model(), {"student_loss": own})


def test_inputs_of_the_spec_that_no_call_gives() -> None:
    own = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}
    distiller = fxkd.prepare(Model(), Model(), LOSS | {"inputs": ["labels"], "student_loss": own})
    with pytest.raises(
        SpecError, match=r"inputs: the call must give labels=<tensor>, which the losses read; it gave None"
    ):
        distiller(batch())


def test_a_loss_that_reads_an_argument_that_does_not_exist() -> None:
    spec = {
        "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "distill_losses": {"loss": nn.MSELoss()},
        "loss_forward_mappings": {
            "loss": {"input": {"recorder": "fc", "from_student": True}, "target": {"from_input": "label"}}
        },
    }
    with pytest.raises((SpecError, LookupError), match=r"no argument 'label' in the call, which has 'x'"):
        fxkd.prepare(Model(), Model(), spec, example_inputs=(batch(),))
