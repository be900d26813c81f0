"""Distillation without data: its steps against the same written by hand, gradients where they belong, messages."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fxkd
from fxkd.capture import Inputs
from fxkd.errors import CaptureError, DifferenceError, SpecError, SpecWarning
from fxkd.generators import DAFLGenerator, ZSKTGenerator
from fxkd.verify import verify
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
ROWS, STEPS = 4, 3
GENERATOR = {"type": "ZSKTGenerator", "img_size": 4, "latent_dim": 5, "hidden_channels": 4}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """A convolution, a norm and a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.conv, self.norm, self.fc = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))
        return logits


def spec(teacher: str = "fc", **options: Any) -> dict[str, Any]:
    return {"pairs": [{"student": "fc", "teacher": teacher, "loss": {"type": "KLDivergence", **options}}]}


LEARN, DRAW = spec(), spec(loss_weight=-0.5, teacher_detach=False)


def models() -> tuple[Net, Net, nn.Module]:
    student, teacher = Net(4).double(), Net(6).double()
    torch.manual_seed(0)
    return student, teacher, ZSKTGenerator(4, 5, 4).double()


def optimizers_of(student: Any, generator: Any) -> dict[str, torch.optim.Optimizer]:
    return {
        "student": torch.optim.SGD(student, lr=0.05, momentum=0.9),
        "generator": torch.optim.Adam(generator, lr=0.01),
    }


def made(*given: Any, **options: Any) -> tuple[fxkd.DataFree, dict[str, torch.optim.Optimizer]]:
    data_free = fxkd.DataFree(*given, **options)
    return data_free, optimizers_of(data_free.student_parameters(), data_free.generator_parameters())


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


class ByHand:
    """The same steps in plain PyTorch; the generator's gradient by itself, so that no other is made."""

    def __init__(self, student: nn.Module, teacher: nn.Module, generator: nn.Module) -> None:
        self.student, self.teacher, self.generator = student, teacher.eval().requires_grad_(False), generator
        self.optimizers = optimizers_of(student.parameters(), generator.parameters())

    def images(self) -> Tensor:
        return self.generator(torch.randn(ROWS, 5, dtype=torch.float64))  # type: ignore[no-any-return]

    def learn(self, images: Tensor) -> Tensor:
        return kl(self.student(images.detach()), self.teacher(images.detach()))

    def draw(self, images: Tensor) -> Tensor:
        return -0.5 * kl(self.student(images), self.teacher(images))

    def update_student(self, loss: Tensor) -> None:
        self.optimizers["student"].zero_grad()
        loss.backward()
        self.optimizers["student"].step()

    def update_generator(self, loss: Tensor) -> None:
        weights = list(self.generator.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        self.optimizers["generator"].step()

    def alternate(self, count: int, *, student_first: bool) -> dict[str, float]:
        losses: dict[str, float] = {}
        for is_student in (student_first, not student_first):
            for _ in range(count if is_student else 1):
                loss = self.learn(self.images()) if is_student else self.draw(self.images())
                (self.update_student if is_student else self.update_generator)(loss)
            losses["distill" if is_student else "generator"] = loss.item()
        return losses

    def together(self) -> dict[str, float]:
        images = self.images()
        drawn, learnt = self.draw(images), self.learn(images)
        self.update_generator(drawn)
        self.update_student(learnt)
        return {"distill": learnt.item(), "generator": drawn.item()}


ORDERS: dict[str, tuple[dict[str, Any], Callable[[ByHand], dict[str, float]]]] = {
    "by default": ({}, lambda hand: hand.alternate(1, student_first=False)),
    "three to one": ({"student_iter": 3}, lambda hand: hand.alternate(3, student_first=False)),
    "student first": (
        {"student_iter": 2, "student_train_first": True},
        lambda hand: hand.alternate(2, student_first=True),
    ),
    "joint": ({"joint": True}, ByHand.together),
}


@BACKENDS
@pytest.mark.parametrize("order", ORDERS)
def test_steps_are_those_written_by_hand(order: str, backend: str) -> None:
    options, step_by_hand = ORDERS[order]
    hand = ByHand(*models())
    data_free, optimizers = made(*models(), LEARN, DRAW, backend=backend, **options)
    for seed in range(STEPS):
        torch.manual_seed(seed)
        expected = step_by_hand(hand)
        torch.manual_seed(seed)
        losses = data_free.train_step(ROWS, optimizers)
        named = {name: value.item() for name, value in losses.items()}
        wanted = {f"{side}.{name}": expected[side] for side in expected for name in ("loss_fc", "loss")}
        assert named == pytest.approx(wanted, rel=1e-9)
        assert not any(value.requires_grad for value in losses.values())
    for one, other in ((hand.student, data_free.student), (hand.generator, data_free.generator)):
        assert_same(one.state_dict(), other.state_dict(), 1e-9)
        assert_same([p.grad for p in one.parameters()], [p.grad for p in other.parameters()], 1e-9, atol=1e-12)
    assert_same(hand.teacher.state_dict(), data_free.teachers["teacher"].state_dict())
    assert not any(p.requires_grad or p.grad is not None for p in data_free.teachers["teacher"].parameters())


@BACKENDS
def test_each_step_leaves_gradients_to_its_own_side(backend: str) -> None:
    """Hooks on parameters run for those of the side that is trained, once a step, and for no other."""
    data_free, optimizers = made(*models(), LEARN, DRAW, backend=backend)
    ran: list[tuple[str, bool]] = []
    is_students_turn = False
    for side, part in (("student", data_free.student), ("generator", data_free.generator)):
        for parameter in part.parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, side=side: ran.append((side, is_students_turn)))
    data_free._generator_step(ROWS, optimizers)
    assert all(parameter.grad is None for parameter in data_free.student.parameters())
    before = [parameter.grad.clone() for parameter in data_free.generator.parameters()]
    is_students_turn = True
    data_free._student_steps(ROWS, optimizers)
    assert_same(before, [parameter.grad for parameter in data_free.generator.parameters()])
    own = [("student", True)] * len(list(data_free.student.parameters()))
    assert ran == [("generator", False)] * len(before) + own


@BACKENDS
def test_connectors_train_with_the_side_whose_spec_has_them(backend: str) -> None:
    pair = {"student": "conv", "teacher": "conv", "loss": {"type": "L1Loss"}, "student_connector": "auto"}
    given, both = [model.float() for model in models()], [{"pairs": [pair]}, {"pairs": [pair]}]
    data_free, optimizers = made(*given, *both, backend=backend, example_inputs=torch.randn(3, 3, 4, 4))
    connectors = [data_free.distiller.connectors, data_free.generator_distiller.connectors]
    before = [copy.deepcopy(connector.state_dict()) for connector in connectors]
    for step, expected in ((data_free._student_steps, [True, False]), (data_free._generator_step, [True, True])):
        step(ROWS, optimizers)
        moved = [
            any(not torch.equal(value, was[name]) for name, value in connector.state_dict().items())
            for connector, was in zip(connectors, before, strict=True)
        ]
        assert moved == expected


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, which it hides elsewhere
@pytest.mark.parametrize("order", ["by default", "joint"])
def test_a_compiled_step_is_the_same(order: str, fresh_dynamo: None) -> None:
    options = ORDERS[order][0]
    states = []
    for compile in (False, {"backend": "aot_eager", "fullgraph": True}):
        data_free, optimizers = made(*models(), LEARN, DRAW, compile=compile, **options)
        torch.manual_seed(0)
        for _ in range(STEPS):
            data_free.train_step(ROWS, optimizers)
        states.append([data_free.student.state_dict(), data_free.generator.state_dict()])
    assert_same(*states, 1e-9)  # type: ignore[misc]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("order", ["student first", "joint"])
def test_wrapped_for_several_processes(order: str, one_process: None) -> None:
    """The wrappers see a whole backward of their own part at each step, and complain otherwise."""
    states = []
    for wrapped in (False, True):
        data_free, optimizers = made(*models(), LEARN, DRAW, **ORDERS[order][0])
        student, generator = data_free.student, data_free.generator
        if wrapped:
            data_free.distiller = DistributedDataParallel(data_free.distiller)
            data_free.generator = DistributedDataParallel(data_free.generator)
        torch.manual_seed(0)
        for _ in range(STEPS):
            data_free.train_step(ROWS, optimizers)
        data_free.step()
        assert data_free.student is student
        states.append([student.state_dict(), generator.state_dict()])
    assert_same(*states, 1e-9)  # type: ignore[misc]


def test_a_generator_is_told_at_once_where_a_graph_loses_its_gradient() -> None:
    x = torch.ones(2, 3, requires_grad=True)

    def step(value: Tensor) -> dict[str, Any]:
        return {"loss": value.square().sum(), "losses": {}, "student_loss": None, "output": None}

    def whole(call: Inputs) -> dict[str, Any]:
        return step(call.args[0])

    def cut(call: Inputs) -> dict[str, Any]:
        return step(torch.cat((call.args[0][:1], call.args[0][1:].detach())))

    verify(whole, whole, {}, [Inputs((x,))], backward=True)
    with pytest.raises(DifferenceError, match="the gradient of input 0 is off by 2"):
        verify(cut, whole, {}, [Inputs((x,))], backward=True)


def test_example_images_capture_both_distillers_as_they_will_run() -> None:
    data_free, optimizers = made(*models(), LEARN, DRAW, example_inputs=torch.randn(3, 3, 4, 4, dtype=torch.float64))
    distillers = (data_free.distiller, data_free.generator_distiller)
    assert [len(distiller.programs) for distiller in distillers] == [1, 1]
    data_free.train_step(ROWS, optimizers)
    assert [len(distiller.programs) for distiller in distillers] == [1, 1]


def test_example_images_ask_for_gradients_as_drawn_ones_do() -> None:
    """A loss of the teacher alone trains the generator: there is nothing to warn of."""
    mapping = {"preds_T": {"recorder": "fc", "from_student": False}}
    draw = {
        "teacher_recorders": {"fc": {"type": "ModuleOutputs", "source": "fc"}},
        "distill_losses": {"loss": {"type": "OnehotLikeLoss"}},
        "loss_forward_mappings": {"loss": mapping},
    }
    images = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    data_free, optimizers = made(*models(), LEARN, draw, example_inputs=[images, images[:2]])
    assert data_free.train_step(ROWS, optimizers)["generator.loss"] > 0
    assert not images.requires_grad


def test_teachers_by_name_and_modes() -> None:
    student, teacher, generator = models()
    data_free, optimizers = made(
        student, {"big": teacher}, generator, fxkd.Spec.load(spec("big.fc")), spec("big.fc", teacher_detach=False)
    )
    assert data_free.teachers == {"big": teacher}
    assert not teacher.training
    data_free.eval()
    data_free.train()
    assert not teacher.training
    assert generator.training
    assert student.training
    data_free.train_step(ROWS, optimizers)


def test_moves_copies_and_states() -> None:
    data_free, optimizers = made(*models(), LEARN, DRAW)
    data_free.train_step(ROWS, optimizers)
    other = copy.deepcopy(data_free)
    before = copy.deepcopy(data_free.state_dict())
    other.train_step(ROWS, optimizers_of(other.student_parameters(), other.generator_parameters()))
    assert other.student is other.distiller.student is other.generator_distiller.student
    assert_same(before, data_free.state_dict())
    with pytest.raises(AssertionError):
        assert_same(before, other.state_dict())
    other.load_state_dict(before)
    assert_same(before, other.state_dict())
    assert not any("teacher" in name for name in before)
    assert {p.dtype for p in other.float().parameters()} == {torch.float32}
    losses = other.train_step(ROWS, optimizers_of(other.student_parameters(), other.generator_parameters()))
    assert losses["distill.loss"].dtype == torch.float32


def test_schedules_of_both_go_on() -> None:
    moving = {"loss_weight": {"schedule": "linear", "start": 1.0, "end": 0.0, "steps": 4}}
    data_free, _ = made(*models(), spec(**moving), spec(**moving, teacher_detach=False))
    data_free.step()
    weights = [d.losses["loss_fc"].loss_weight.item() for d in (data_free.distiller, data_free.generator_distiller)]
    assert weights == [0.75, 0.75]


# From a spec


def test_one_spec_holds_all() -> None:
    student, teacher, generator = models()
    own = {"generator_spec": DRAW, "student_iter": 2, "student_train_first": True}
    described = fxkd.DataFree.from_spec(student, teacher, None, {**LEARN, "data_free": {**own, "generator": GENERATOR}})
    assert isinstance(described.generator, ZSKTGenerator)
    assert (described.student_iter, described.student_train_first, described.joint) == (2, True, False)
    given = fxkd.DataFree.from_spec(
        student, teacher, generator, {**LEARN, "data_free": {**own, "generator": GENERATOR}}, student_iter=7
    )
    assert given.generator is generator
    assert given.student_iter == 7
    built = fxkd.build_algorithm(
        {"type": "DataFree", "spec": {**LEARN, "data_free": own}},
        student=student,
        teachers=teacher,
        generator=generator,
    )
    assert isinstance(built, fxkd.DataFree)
    assert built.generator is generator


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (LEARN, "data_free: is not there; give a spec that is a mapping and has this key, with 'generator', "),
        ("spec.yaml", "data_free: is not there"),
        ({"data_free": 3}, "data_free: is not there"),
        ({"data_free": {"generator_spec": DRAW}}, "data_free.generator: is not there; describe one, or give a module"),
        ({"data_free": {"generator": GENERATOR}}, "data_free.generator_spec: is not there; say by which losses"),
        (
            {"data_free": {"generator": GENERATOR, "generator_spec": DRAW, "student_itr": 1}},
            "data_free.student_itr: unknown key; there is .* Did you mean 'student_iter'",
        ),
    ],
)
def test_specs_that_do_not_hold_all(given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fxkd.DataFree.from_spec(*models()[:2], None, given)


# What cannot be


def refused(message: str, **changed: Any) -> None:
    student, teacher, generator = models()
    given = {"student": student, "teachers": teacher, "generator": generator, "spec": LEARN, "generator_spec": DRAW}
    with pytest.raises(SpecError, match=message):
        fxkd.DataFree(**{**given, **changed})
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"student_iter": 0}, "student_iter: is 0; give a whole number above 0"),
        ({"student_iter": True}, "student_iter: is True; give a whole number above 0"),
        ({"student_train_first": "yes"}, "student_train_first: is 'yes'; give True or False"),
        ({"joint": 1}, "joint: is 1; give True or False"),
        (
            {"joint": True, "student_iter": 5},
            "joint: is True: both learn from the same images, once, and the generator",
        ),
        (
            {"joint": True, "student_train_first": True},
            "leave 'student_iter' and 'student_train_first' out, or 'joint'",
        ),
        ({"bakend": "eager"}, "bakend: unknown option; fxkd.prepare takes .* Did you mean 'backend'"),
        ({"backend": "egaer"}, "backend: is 'egaer'; .*Did you mean 'eager'"),
        ({"teachers": None}, "teachers: is None; without data a student learns from a teacher"),
        ({"teachers": {}}, "teacher: is an empty dict"),
        ({"student": 3}, "student: is a int; give an nn.Module"),
        ({"generator": DAFLGenerator}, "generator: is the class DAFLGenerator and no object of it"),
        ({"generator": nn.Identity()}, "generator: has no parameter that requires gradients"),
        ({"generator": {"type": "DAFL"}}, "generator: no generator is called 'DAFL'"),
        ({"spec": {**LEARN, "inputs": ["labels"]}}, "inputs: the losses have images and no other values"),
        ({"spec": {**LEARN, "teacher_trainable": True}}, "teacher_trainable: is true; without data a teacher stays"),
        ({"spec": {**LEARN, "stop_epoch": 3}}, "stop_epoch: nothing would train after it"),
        ({"spec": {"pairs": []}}, "distill_losses: has no loss to train on, whose name contains 'loss'"),
        ({"spec": spec("cf")}, "teacher_recorders.cf.source: no module 'cf' in Net"),
        ({"generator_spec": {"pairs": 3}}, "generator_spec: pairs: is a int; give a list of pairs"),
        ({"generator_spec": spec("cf")}, "generator_spec: teacher_recorders.cf.source: no module 'cf' in Net"),
    ],
)
def test_what_cannot_be(changed: dict[str, Any], message: str) -> None:
    refused(message, **changed)


def test_all_problems_in_one_report() -> None:
    student, teacher, generator = models()
    with pytest.raises(SpecError) as caught:
        fxkd.DataFree(student, teacher, generator, {**LEARN, "stop_epoch": 3}, {"pairs": 3}, student_iter=0)
    starts = [problem.partition(":")[0] for problem in caught.value.problems]
    assert starts == ["student_iter", "stop_epoch", "generator_spec"]


def test_a_failed_capture_leaves_the_teacher_as_it_was() -> None:
    student, teacher, generator = models()
    with pytest.raises(CaptureError):
        fxkd.DataFree(student, teacher, generator, LEARN, DRAW, example_inputs=torch.randn(3, 7, 4, 4).double())
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        ({}, "optimizers: is an empty mapping; give {'student': optimizer, 'generator': optimizer}"),
        ({"student": None}, "optimizers: is 'student'; give"),
        ({"architecture": None, "generator": None}, "optimizers: is 'architecture', 'generator'; give"),
        (3, "optimizers: is a int; give"),
    ],
)
def test_optimizers_that_cannot_be(optimizers: Any, message: str) -> None:
    data_free, _ = made(*models(), LEARN, DRAW)
    with pytest.raises(SpecError, match=message):
        data_free.train_step(ROWS, optimizers)


def test_batch_sizes_that_cannot_be() -> None:
    data_free, optimizers = made(*models(), LEARN, DRAW)
    with pytest.raises(SpecError, match="ZSKTGenerator: batch_size is 0"):
        data_free.train_step(0, optimizers)


def test_a_generator_that_learns_nothing_through_the_teacher() -> None:
    with pytest.warns(SpecWarning, match="generator_spec.distill_losses.loss_fc: 'teacher_detach' is on, so the gen"):
        fxkd.DataFree(*models(), LEARN, spec(loss_weight=-1.0))


# Algorithms by name


def test_an_algorithm_is_built_of_config_and_models() -> None:
    @fxkd.algorithm("TestsOwn")
    class Own:
        def __init__(self, **given: Any) -> None:
            self.given = given

        @classmethod
        def prepare(cls, student: Any, rate: float = 1.0) -> "Own":
            return cls(student=student, rate=rate)

        def train_step(self, batch: Any, optimizers: Any) -> dict[str, Any]:
            return {}

    assert fxkd.build_algorithm({"type": "TestsOwn", "rate": 0.5}, student=3).given == {"student": 3, "rate": 0.5}
    with pytest.raises(SpecError, match="TestsOwn: got an unexpected keyword argument 'rat'; prepare takes"):
        fxkd.build_algorithm({"type": "TestsOwn", "rat": 0.5}, student=3)
    with pytest.raises(SpecError, match="TestsOwn: missing a required argument: 'student'; prepare takes"):
        fxkd.build_algorithm({"type": "TestsOwn"})
    with pytest.raises(SpecError, match="TestsOwn: 'student' is given twice, in the config and beside it"):
        fxkd.build_algorithm({"type": "TestsOwn", "student": 3}, student=3)
    with pytest.raises(SpecError, match=r"no algorithm is called 'TestOwn'; there is .*Did you mean 'TestsOwn'"):
        fxkd.build_algorithm({"type": "TestOwn"})
    with pytest.raises(SpecError, match=r"an algorithm is built from {'type': name, .*}, not from 'TestsOwn'"):
        fxkd.build_algorithm("TestsOwn")  # type: ignore[arg-type]


class Complete:
    @classmethod
    def prepare(cls) -> "Complete":
        return cls()

    def train_step(self, batch: Any, optimizers: Any) -> dict[str, Any]:
        return {}


class OfObjects(Complete):
    def prepare(self) -> "Complete":  # type: ignore[override]
        return self


class WithoutOptimizers(Complete):
    def train_step(self, batch: Any) -> dict[str, Any]:  # type: ignore[override]
        return {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (int, "@fxkd.algorithm.'Name'.: int lacks 'prepare' and 'train_step'; an algorithm has a classmethod prepare"),
        (Complete(), "@fxkd.algorithm.'Name'. decorates a class, not <"),
        (OfObjects, "'prepare' of OfObjects is no classmethod; an algorithm has"),
        (WithoutOptimizers, r"'train_step' of WithoutOptimizers takes \(self, batch: .*; an algorithm has"),
    ],
)
def test_classes_that_are_no_algorithms(given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        fxkd.algorithm("Name")(given)
    with pytest.raises(SpecError, match="no algorithm is called 'Name'"):
        fxkd.build_algorithm({"type": "Name"})


def test_names_of_algorithms() -> None:
    with pytest.raises(SpecError, match=r"the algorithm 'DataFree' is fxkd.data_free.DataFree already"):
        fxkd.algorithm("DataFree")(Complete)
    assert fxkd.algorithm("DataFree")(fxkd.DataFree) is fxkd.DataFree
    with pytest.raises(SpecError, match="takes the name under which configs find the class"):
        fxkd.algorithm(Complete)  # type: ignore[arg-type]
