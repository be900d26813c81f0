"""The oracle against hand-written PyTorch that calls the submodules one by one: no hooks, nothing replaced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.cases import (
    CASES,
    L1,
    REAL_CASES,
    Config,
    Spec,
    compare,
    deliver_function,
    deliver_method,
    every,
    modules,
    points,
    spec,
)
from tests.support.models import builds, cnn, twice
from tests.support.oracle import (
    RECORDERS,
    Training,
    assert_same,
    energy,
    own_loss,
    patched,
    run_with_hooks,
    seed_everything,
    snapshot,
    train_with_hooks,
)

Losses = dict[str, Callable[[Tensor, Tensor], Tensor]]


def divergence(student: Tensor, teacher: Tensor, dim: int = 1) -> Tensor:
    return functional.kl_div(student.log_softmax(dim), teacher.softmax(dim), reduction="batchmean")


STAND_INS: Losses = {
    "L1Loss": functional.l1_loss,
    "L2Loss": functional.mse_loss,
    "KLDivergence": divergence,
    "ATLoss": lambda student, teacher: functional.mse_loss(student.square().mean(1), teacher.square().mean(1)),
    "ChannelWiseDivergence": lambda student, teacher: divergence(student.flatten(2), teacher.flatten(2), dim=2),
}


class StandIn(nn.Module):
    """A loss of two features; the mapping gives the student's first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.function = STAND_INS[config["type"]]

    def forward(self, **features: Tensor) -> Tensor:
        student, teacher = features.values()
        return self.function(student, teacher)


def connector(config: Config) -> nn.Module:
    if config["type"] == "LinearConnector":
        return nn.Linear(config["in_features"], config["out_features"])
    return nn.Conv2d(
        config["in_channel"], config["out_channel"], config["kernel_size"], padding=config.get("padding", 0)
    )


def stand_ins(given: Spec) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """Make the connectors and losses of a spec."""
    torch.manual_seed(3)
    connectors = nn.ModuleDict({name: connector(config) for name, config in given["connectors"].items()})
    return connectors, nn.ModuleDict({name: StandIn(config) for name, config in given["distill_losses"].items()})


def gradients(*models: nn.Module) -> list[Tensor | None]:
    return [value.grad for model in models for value in model.parameters()]


# --- three models by hand


def run_cnn(model: cnn.Cnn, x: Tensor, mixed: Tensor | None = None) -> dict[str, Tensor]:
    """Compute what the specs record; a ``mixed`` that is given takes the place of the mixer's result."""
    entered = model.entry(x).relu()
    mixed = model.mixer.mix(entered) if mixed is None else mixed
    stem = model.bn(model.stem(mixed))
    (block, *further) = model.layers
    before = cnn.squash(stem.relu())
    norm = block.bn1(block.conv1(before))
    shortcut = block.bn2(block.conv2(norm.relu()))
    relu = (shortcut + before).relu()
    last = relu
    for layer in further:
        last = layer(last.clone())
    logits = model.fc(cnn.squash(last, limit=2.0).mean((2, 3)))
    return {"mixed": mixed, "stem": stem, "norm": norm, "shortcut": shortcut, "relu": relu, "logits": logits}


@pytest.mark.parametrize("name", ["modules", "deliver_method"])
def test_cnn_by_hand(name: str) -> None:
    case = CASES["cnn"]
    (x,), _ = case.inputs()
    chosen = case.spec(name)
    connectors, losses = stand_ins(chosen)
    student, teacher = case.build_student(), case.build_teacher()
    seed_everything(0)
    result = run_with_hooks(student, teacher, chosen, (x,), {}, connectors, losses)
    result.loss.backward()

    connectors_by_hand, _ = stand_ins(chosen)
    student_by_hand, teacher_by_hand = case.build_student(), case.build_teacher().eval()
    seed_everything(0)
    with torch.no_grad():
        theirs = run_cnn(teacher_by_hand, x)
    ours = run_cnn(student_by_hand, x, theirs["mixed"] if name == "deliver_method" else None)
    terms = [divergence(ours["logits"], theirs["logits"])]
    if name == "modules":
        terms += [
            functional.mse_loss(connectors_by_hand["grow"](ours["norm"]), theirs["norm"]),
            functional.mse_loss(connectors_by_hand["grow_more"](ours["shortcut"]), theirs["shortcut"]),
            functional.mse_loss(ours["relu"].square().mean(1), theirs["relu"].square().mean(1)),
        ]
    else:
        terms.append(functional.mse_loss(connectors_by_hand["grow"](ours["stem"]), theirs["stem"]))
    sum(terms).backward()

    assert_same(snapshot(result.loss), snapshot(sum(terms)))
    assert_same(result.output, ours["logits"])
    for side, values in {"student": ours, "teacher": theirs}.items():
        for record, calls in result.records[side].items():
            assert_same(calls[1 if record == "relu" else 0], values[record], path=f"{side}.{record}")
    assert_same(gradients(student, connectors), gradients(student_by_hand, connectors_by_hand), 1e-5, atol=1e-9)
    assert_same(dict(student.named_buffers()), dict(student_by_hand.named_buffers()))
    assert (student.entry.weight.grad is None) == (name == "deliver_method")


def test_first_call_is_delivered_first() -> None:
    case = CASES["twice"]
    (left, right), _ = case.inputs()
    chosen = spec(
        points("ModuleInputs", conv="conv"),
        {},
        deliveries={"images": deliver_function("tests.support.models.twice.brighten", calls=2)},
    )
    student, teacher = case.build_student(), case.build_teacher()
    seed_everything(5)
    result = run_with_hooks(student, teacher, chosen, (left, right), {}, {}, {})

    seed_everything(5)
    brighter = [twice.brighten(left), twice.brighten(right)]
    by_hand = case.build_teacher().eval()
    teacher_factors = [by_hand.jitter.factor(left), by_hand.jitter.factor(right)]
    by_hand = case.build_student()
    a, b = (by_hand.conv(images) for images in brighter)
    a, b = by_hand.jitter.scale(a), by_hand.jitter.scale(b)
    merged = a + by_hand.share * b
    output = by_hand.fc((by_hand.block(by_hand.block(merged)) + merged).mean((2, 3)))

    expected = [(images,) for images in brighter]
    assert result.loss is None
    assert not torch.equal(*teacher_factors)
    assert_same(result.records, {"student": {"conv": expected}, "teacher": {"conv": expected}})
    assert_same(result.output, output)


def test_delivered_number_is_one_number() -> None:
    case = CASES["builds"]
    (x,), _ = case.inputs()
    offset = "tests.support.models.builds.Offset"
    recorders = {
        **points("MethodOutputs", moved=f"{offset}.apply"),
        **points("MethodInputs", unmoved=f"{offset}.apply"),
        **modules(first="conv1"),
    }
    delivered = spec(recorders, {}, deliveries={"number": deliver_method(f"{offset}.draw")})

    def numbers(chosen: Spec, seed: int) -> tuple[int, int]:
        seed_everything(seed)
        records = run_with_hooks(case.build_student(), case.build_teacher(), chosen, (x,), {}, {}, {}).records
        for side in records.values():
            assert_same(side["unmoved"], [[side["first"][0]]])
        student, teacher = (records[side]["moved"][0] - records[side]["first"][0] for side in ("student", "teacher"))
        return round(student.mean().item()), round(teacher.mean().item())

    seed_everything(1)
    drawn = [builds.Offset(9).draw() for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert numbers(delivered, 1) == (drawn[0], drawn[0])
    assert numbers(spec(recorders, {}), 1) == (drawn[1], drawn[0])


def test_training_by_hand() -> None:
    case = CASES["builds"]
    chosen = case.spec("modules")
    connectors, losses = stand_ins(chosen)
    trained = train_with_hooks(case, chosen, connectors, losses, steps=3, with_output=True)

    student, teacher = case.build_student(), case.build_teacher().eval()
    weights = [*student.parameters(), *connectors.parameters()]
    optimiser = torch.optim.SGD(weights, lr=0.02, momentum=0.9)
    for number, ((x,), _) in enumerate(case.batches(3)):
        seed_everything(number)
        drawn = teacher.offset.draw()
        ours, theirs = run_builds(student, x, drawn), run_builds(teacher, x, drawn)
        terms = [
            functional.mse_loss(connectors["grow"](ours[0]), theirs[0].detach()),
            divergence(connectors["grow"](ours[1]).flatten(2), theirs[1].detach().flatten(2), dim=2),
            divergence(ours[2], theirs[2].detach()),
        ]
        optimiser.zero_grad()
        (sum(terms) + ours[2].square().mean()).backward()
        step = trained.steps[number]
        assert_same(step.loss, snapshot(sum(terms)), 1e-5)
        assert_same(step.output, snapshot(ours[2]), 1e-5)
        assert_same(list(step.gradients.values()), [value.grad for value in weights], 1e-5, atol=1e-8)
        optimiser.step()
    assert_same(
        list(trained.parameters.values()), [snapshot(value.data) for value in [*weights, *teacher.parameters()]], 1e-5
    )


def run_builds(model: builds.Builds, x: Tensor, drawn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute both convolutions and the logits with the number ``drawn``."""
    first = model.conv1(x)
    x = functional.gelu(first + drawn)
    x = functional.avg_pool2d(functional.layer_norm(x, x.shape[1:]), 2)
    second = model.conv2(x)
    pooled = (x.flatten(2).clamp(min=1e-3).sqrt() * second.flatten(2).softmax(-1)).sum(-1)
    return first, second, model.fc(functional.silu(pooled).clamp(min=1e-3).square())


# --- records and deliveries


def test_a_record_is_the_value_at_its_point() -> None:
    case = CASES["features"]
    args, kwargs = case.inputs()
    chosen = spec({**modules(levels="backbone"), **points("ModuleInputs", given="neck")}, {})
    student = case.build_student()
    records = run_with_hooks(student, case.build_teacher(), chosen, args, kwargs, {}, {}).records["student"]
    levels = student.backbone(*args)
    assert_same(records, {"levels": [levels], "given": [(levels,)]})


def test_inputs_in_signature_order() -> None:
    case = CASES["twice"]
    args, kwargs = case.inputs()
    chosen = spec(points("FunctionInputs", merge="tests.support.models.twice.merge"), {})
    result = run_with_hooks(case.build_student(), case.build_teacher(), chosen, args, kwargs, {}, {})
    first, second = result.records["student"]["merge"]
    assert [tuple(value.shape) for value in first] == [(4, 6, 8, 8), (4, 6, 8, 8), ()]
    assert len(second) == 2


@pytest.mark.parametrize(("calls", "message"), [(1, "push into a full queue"), (3, None)])
def test_queue_length(calls: int, message: str | None) -> None:
    case = CASES["twice"]
    args, kwargs = case.inputs()
    path = "tests.support.models.twice.Jitter.factor"
    chosen = spec({}, {}, deliveries={"factor": deliver_method(path, calls)})
    original = twice.Jitter.factor

    def run() -> object:
        return run_with_hooks(case.build_student(), case.build_teacher(), chosen, args, kwargs, {}, {})

    if message is None:
        run()
    else:
        with pytest.raises(RuntimeError, match=message):
            run()
    assert twice.Jitter.factor is original


def test_student_calls_more_often_than_teacher() -> None:
    case, other = CASES["vit"], CASES["vit"].build_teacher()
    other.blocks = other.blocks[:1]
    args, kwargs = case.inputs()
    chosen = case.spec("deliver_method")
    chosen["teacher_recorders"] = {}
    with pytest.raises(RuntimeError, match="pop from an empty queue"):
        run_with_hooks(case.build_student(), other, chosen, args, kwargs, *stand_ins(chosen))


def test_nothing_stays_replaced() -> None:
    class Child(twice.Jitter):
        pass

    with patched(Child, "factor", lambda self, like: like):
        assert "factor" in vars(Child)
    assert "factor" not in vars(Child)

    case = CASES["cnn"]
    args, kwargs = case.inputs()
    student, teacher = case.build_student(), case.build_teacher()
    before = (cnn.squash, cnn.Mixer.mix)
    for chosen in case.specs.values():
        run_with_hooks(student, teacher, chosen, args, kwargs, *stand_ins(chosen))
    assert (cnn.squash, cnn.Mixer.mix) == before
    for module in [*student.modules(), *teacher.modules()]:
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# --- every case


@pytest.mark.parametrize(("name", "spec_name"), every(CASES | REAL_CASES))
def test_every_spec_trains(name: str, spec_name: str) -> None:
    case = (CASES | REAL_CASES)[name]
    chosen = case.spec(spec_name)
    connectors, losses = stand_ins(chosen)
    batches = [case.inputs(4, seed=0), case.inputs(3, seed=1)]
    trained = train_with_hooks(case, chosen, connectors, losses, batches=batches, with_output=True)
    for step in trained.steps:
        assert set(step.losses) == set(chosen["distill_losses"])
        assert all(value.isfinite() and value > 0 for value in step.losses.values())
    assert_same(trained, train_with_hooks(case, chosen, connectors, losses, batches=batches, with_output=True))
    moved = {key for key, value in trained.steps[0].gradients.items() if value is not None and value.abs().max() > 1e-7}
    assert any(key.startswith("student.") for key in moved)
    assert all(any(key.startswith(f"connectors.{name}.") for key in moved) for name in chosen["connectors"])
    teacher = {f"teacher.{key}": value.data for key, value in case.build_teacher().named_parameters()}
    assert_same({key: value for key, value in trained.parameters.items() if key in teacher}, teacher)


@pytest.mark.parametrize(("name", "spec_name"), every(CASES | REAL_CASES))
def test_every_loss_reaches_a_parameter(name: str, spec_name: str) -> None:
    case = (CASES | REAL_CASES)[name]
    chosen = case.spec(spec_name)
    args, kwargs = case.inputs()
    student = case.build_student()
    seed_everything(0)
    connectors, losses = stand_ins(chosen)
    result = run_with_hooks(student, case.build_teacher(), chosen, args, kwargs, connectors, losses)
    for loss in result.losses.values():
        values = [*student.parameters(), *connectors.parameters()]
        reached = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
        assert any(value is not None and value.abs().max() > 0 for value in reached)


def test_every_kind_of_point_is_there() -> None:
    specs = [chosen for case in CASES.values() for chosen in case.specs.values()]
    recorders = [recorder for chosen in specs for recorder in chosen["student_recorders"].values()]
    deliveries = [delivery for chosen in specs for delivery in chosen["distill_deliveries"].values()]
    assert {recorder["type"] for recorder in recorders} == set(RECORDERS)
    assert {delivery["type"] for delivery in deliveries} == {"ModuleOutputs", "FunctionOutputs", "MethodOutputs"}
    assert {config["type"] for chosen in specs for config in chosen["distill_losses"].values()} == set(STAND_INS)


def test_own_loss() -> None:
    case = CASES["decorated_plain"]
    args, kwargs = case.inputs()
    result = run_with_hooks(
        case.build_student(), case.build_teacher(), case.spec("deliver_method"), args, kwargs, {}, {}
    )
    assert_same(result.loss, own_loss(result.output))
    assert own_loss(torch.zeros(1)) is None


# --- comparison


SAME = torch.tensor([1.0, -2.0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": [torch.tensor([1.0, -2.1])]}, r"^value\['a'\]\[0\]: max\|a - b\| = 0.1, allowed 2e-06"),
        ({"a": [torch.tensor([1.0, float("nan")])]}, r"^value\['a'\]\[0\]: max\|a - b\| = nan"),
        ({"a": [SAME.double()]}, r"float32\[2\] and torch.float64\[2\]"),
        ({"a": (SAME,)}, r"^value\['a'\]: list and tuple"),
        ({"a": [SAME, SAME]}, r"^value\['a'\]: lengths 1 and 2"),
        ({"b": [SAME]}, r"^value: keys \['a'\] and \['b'\]"),
        ({"a": [2]}, r"^value\['a'\]\[0\]: Tensor and int"),
    ],
)
def test_differences_are_found(other: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_same({"a": [SAME]}, other)


def test_difference_in_a_dataclass() -> None:
    training = Training([], {"weight": SAME})
    assert_same(training, Training([], {"weight": SAME * (1 + 1e-7)}))
    with pytest.raises(AssertionError, match=r"^value.parameters\['weight'\]: max"):
        assert_same(training, replace(training, parameters={"weight": SAME + 1}))


def test_energy_takes_all_floats() -> None:
    assert energy({"a": SAME, "b": [torch.tensor(3.0), 7, torch.tensor([5])]}).item() == 11.5
    assert compare(L1, "x").student == {}
