"""Each algorithm trains: on digits its loss falls, and exactly the parameters that it is to train change."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fxkd
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
BATCHES, ROWS = 4, 64
OWN = {
    "student_loss": {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}},
    "inputs": ["labels"],
}
ALONE = {"student_loss": False}
KD = {"student": "head", "teacher": "head", "loss": {"type": "KLDivergence", "tau": 2}}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Images (N, 3, 8, 8) to logits of ten digits; no weight without effect."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.neck, self.pool, self.head = nn.Conv2d(2 * width, 12, 1), nn.Flatten(), nn.Linear(12 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        value = self.bn2(self.conv2(self.bn1(self.conv1(images)).relu())).relu()
        logits: Tensor = self.head(self.pool(self.neck(value)))
        return logits


@pytest.fixture(scope="module")
def digits() -> list[tuple[Tensor, Tensor]]:
    source = load_digits()
    images = torch.from_numpy(source.images[: BATCHES * ROWS]).float().div(8).sub(1)
    labels = torch.from_numpy(source.target[: BATCHES * ROWS]).long()
    images = images[:, None].repeat(1, 3, 1, 1)
    return list(zip(images.split(ROWS), labels.split(ROWS), strict=True))


@pytest.fixture(scope="module")
def experts(digits: list[tuple[Tensor, Tensor]], one_thread: None) -> dict[str, Net]:
    """Two networks that know the digits; a test gets a copy."""
    return {"deep": taught(Net(8, seed=1), digits), "wide": taught(Net(12, seed=2), digits)}


def taught(model: Net, digits: list[tuple[Tensor, Tensor]]) -> Net:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(12):
        for images, labels in digits:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    right = sum((model.eval()(images).argmax(1) == labels).sum().item() for images, labels in digits)
    assert right > 0.9 * BATCHES * ROWS
    return model


@pytest.fixture
def teacher(experts: dict[str, Net]) -> Net:
    return copy.deepcopy(experts["deep"])


def states(distiller: fxkd.Distiller) -> dict[str, Tensor]:
    """Copy the state of all there is, the teachers' too."""
    parts: dict[str, nn.Module] = {"student": distiller.student, **distiller.teachers}
    parts |= {"connectors": distiller.connectors, "losses": distiller.losses}
    return {f"{name}.{key}": v.clone() for name, part in parts.items() for key, v in part.state_dict().items()}


def changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def parameters(prefix: str, module: nn.Module, *without: str) -> set[str]:
    """Name the parameters of a part, but for those of some of its modules."""
    names = [name for name, _ in module.named_parameters() if not name.startswith(without)]
    return {f"{prefix}.{name}" for name in names}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def statistics(prefix: str, module: nn.Module) -> set[str]:
    return {f"{prefix}.{name}" for name, _ in module.named_buffers() if name.endswith(STATISTICS)}


@dataclass
class Course:
    """What a training did: the sum of the distillation losses of each epoch, and what it changed."""

    losses: list[float]
    changed: set[str]

    def assert_falls(self, share: float) -> None:
        assert all(map(math.isfinite, self.losses))
        assert self.losses[-1] < share * self.losses[0], self.losses


def train(
    distiller: fxkd.Distiller,
    digits: list[tuple[Tensor, Tensor]],
    *,
    epochs: int = 5,
    lr: float = 0.005,
    with_labels: bool = True,
) -> Course:
    """Train all that the distiller calls its parameters."""
    torch.manual_seed(0)
    before, optimizer = states(distiller), torch.optim.Adam(distiller.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        sums = []
        for images, labels in digits:
            out = distiller(images, **({"labels": labels} if with_labels else {}))
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            sums.append(sum(value.item() for value in out.losses.values()))
        losses.append(sum(sums) / len(sums))
    return Course(losses, changes(before, states(distiller)))


def prepared(student: nn.Module, teacher: Any, spec: Mapping[str, Any], backend: str = "graph") -> fxkd.Distiller:
    return fxkd.prepare(student, teacher, spec, backend=backend)  # type: ignore[arg-type]


def recorders(**sources: str) -> dict[str, dict[str, str]]:
    return {name: {"type": "ModuleOutputs", "source": source} for name, source in sources.items()}


def of(recorder: Any, side: str, **picked: Any) -> dict[str, Any]:
    return {"recorder": recorder, "from_student": side == "student", **picked}


# One teacher


@BACKENDS
def test_logits(digits: Any, teacher: Net, backend: str) -> None:
    distiller = prepared(Net(4), teacher, {"pairs": [KD], **OWN}, backend)
    course = train(distiller, digits)
    course.assert_falls(0.5)
    student = distiller.student
    assert course.changed == parameters("student", student) | statistics("student", student)


@BACKENDS
def test_mutual_learning(digits: Any, teacher: Net, backend: str) -> None:
    spec = {
        "student_recorders": recorders(head="head"),
        "teacher_recorders": recorders(head="head"),
        "distill_losses": {"loss_student": {"type": "KLDivergence"}, "loss_teacher": {"type": "KLDivergence"}},
        "loss_forward_mappings": {
            "loss_student": {"preds_S": of("head", "student"), "preds_T": of("head", "teacher")},
            "loss_teacher": {"preds_S": of("head", "teacher"), "preds_T": of("head", "student")},
        },
        "teacher_trainable": True,
        **OWN,
    }
    distiller = prepared(Net(4), teacher, spec, backend)
    course = train(distiller, digits)
    course.assert_falls(0.4)
    both = {"student": distiller.student, "teacher": teacher}
    assert course.changed == {
        name for side, model in both.items() for name in parameters(side, model) | statistics(side, model)
    }


def test_the_neck_alone_of_a_teacher(digits: Any, teacher: Net) -> None:
    """The teacher's head does not run; without the student's own loss its head does not train either."""
    pair = {"student": "neck", "teacher": "neck", "loss": {"type": "PKDLoss"}}
    calls: list[str] = []
    for name in ("conv1", "neck", "head"):
        teacher.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    distiller = fxkd.prepare(Net(4), teacher, {"pairs": [pair], **ALONE}, verify=False)
    distiller(digits[0][0])
    calls.clear()
    course = train(distiller, digits, with_labels=False)
    course.assert_falls(0.7)
    steps = 5 * BATCHES
    assert {name: calls.count(name) for name in ("conv1", "neck", "head")} == {"conv1": steps, "neck": steps, "head": 0}
    student = distiller.student
    assert course.changed == parameters("student", student, "head") | statistics("student", student)


def test_overhaul(digits: Any, teacher: Net, tmp_path: Path) -> None:
    """The margins are those of the norm whose weights the checkpoint holds."""
    with torch.no_grad():
        teacher.bn1.weight[0], teacher.bn1.bias[0] = 0.25, 1.0
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    widened = {"type": "ConvModuleConnector", "in_channel": 4, "out_channel": 8, "norm_cfg": {"type": "BN"}}
    pair = {
        "student": "bn1",
        "teacher": "bn1",
        "loss": {"type": "OFDLoss"},
        "student_connector": {**widened, "act_cfg": None},
        "teacher_connector": {"type": "OFDTeacherConnector"},
    }
    distiller = prepared(
        Net(4), Net(8, seed=5), {"pairs": [pair], "teacher_ckpt": str(tmp_path / "teacher.pth"), **ALONE}
    )
    margin: Any = distiller.connectors.loss_bn1_teacher.margin  # type: ignore[union-attr]
    assert margin.shape == (1, 8, 1, 1)
    assert_same(margin.flatten().double(), mean_below_zero(teacher.bn1), 1e-4)
    assert margin[0, 0, 0, 0].item() == pytest.approx(-0.75)
    course = train(distiller, digits, epochs=8, lr=0.02, with_labels=False)
    course.assert_falls(0.7)
    trained = parameters("student", distiller.student, "conv2", "bn2", "neck", "head")
    connector = distiller.connectors.loss_bn1_student
    assert course.changed == trained | statistics("student", distiller.student) | {
        f"connectors.loss_bn1_student.{name}" for name in connector.state_dict()
    }


def mean_below_zero(norm: nn.BatchNorm2d) -> Tensor:
    """Integrate the negative half of each channel's normal distribution; three deviations where there is none."""
    means = []
    for scale, shift in zip(norm.weight.detach().double().abs(), norm.bias.detach().double(), strict=True):
        values = torch.linspace(-20.0 * scale.item() - shift.abs().item(), 0.0, 200_001, dtype=torch.float64)
        density = torch.exp(-0.5 * ((values - shift) / scale).square())
        whole = scale * math.sqrt(2 * math.pi)
        share = torch.trapezoid(density, values) / whole
        mean = torch.trapezoid(values * density, values) / torch.trapezoid(density, values).clamp_min(1e-300)
        means.append(mean if share > 0.001 else -3 * scale)
    return torch.stack(means)


# Two stages


def test_factor_transfer_in_two_stages(digits: Any, teacher: Net, tmp_path: Path) -> None:
    paraphraser = {"type": "Paraphraser", "in_channel": 16, "out_channel": 8, "use_bn": False}
    first = {
        "teacher_recorders": recorders(feature="bn2"),
        "connectors": {"paraphraser": {**paraphraser, "phase": "pretrain"}},
        "distill_losses": {"loss": {"type": "L2Loss", "normalize": False, "div_element": True}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": of("feature", "teacher", connector="paraphraser"),
                "t_feature": of("feature", "teacher"),
            }
        },
        "student_trainable": False,
        **ALONE,
    }
    student = Net(4)
    stage = prepared(student, teacher, first)
    course = train(stage, digits, epochs=8, with_labels=False)
    course.assert_falls(0.6)
    code = stage.connectors.paraphraser
    assert course.changed == parameters("connectors.paraphraser", code) | statistics("student", student)
    torch.save(stage.state_dict(), tmp_path / "first.pth")

    second = {
        "student_recorders": recorders(feature="bn2"),
        "teacher_recorders": recorders(feature="bn2"),
        "connectors": {
            "paraphraser": {**paraphraser, "phase": "train"},
            "translator": {"type": "Translator", "in_channel": 8, "out_channel": 8},
        },
        "distill_losses": {"loss": {"type": "FTLoss"}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": of("feature", "student", connector="translator"),
                "t_feature": of("feature", "teacher", connector="paraphraser"),
            }
        },
        "pretrained": str(tmp_path / "first.pth"),
        **OWN,
    }
    stage = prepared(student, teacher, second)
    assert_same(code.state_dict(), stage.connectors.paraphraser.state_dict())
    assert [note for note in stage.notes if "starts anew" in note and "connectors.translator" in note]
    course = train(stage, digits)
    course.assert_falls(0.8)
    translator = stage.connectors.translator
    trained = parameters("student", student) | {f"connectors.translator.{name}" for name in translator.state_dict()}
    without_effect = {f"connectors.translator.encoder.{index}.bias" for index in (0, 3, 6)}  # each before a norm
    assert course.changed | without_effect == trained | statistics("student", student)


def test_training_goes_on_where_the_checkpoints_end(digits: Any, teacher: Net, tmp_path: Path) -> None:
    """The next loss is that of the training that was not interrupted."""
    connector = {"type": "ConvModuleConnector", "in_channel": 8, "out_channel": 16, "bias": False, "act_cfg": None}
    pair = {"student": "bn2", "teacher": "bn2", "loss": {"type": "L2Loss"}, "student_connector": connector}
    spec: dict[str, Any] = {"pairs": [pair], **OWN}
    distiller = prepared(Net(4), teacher, spec)
    course = train(distiller, digits)
    torch.save(distiller.state_dict(), tmp_path / "distiller.pth")
    torch.save({"state_dict": teacher.state_dict()}, tmp_path / "teacher.pth")
    files = {"student_ckpt": "distiller.pth", "pretrained": "distiller.pth", "teacher_ckpt": "teacher.pth"}
    again = prepared(Net(4, 7), Net(8, 7), spec | {key: str(tmp_path / name) for key, name in files.items()})
    assert_same(distiller.state_dict(), again.state_dict())
    more = [train(one, digits, epochs=2) for one in (distiller, again)]
    assert more[0].losses == pytest.approx(more[1].losses, rel=1e-5)
    assert more[1].losses[-1] < course.losses[-1] < 0.9 * course.losses[0]
    assert more[0].changed == more[1].changed
    assert (
        parameters("student", again.student) | {"connectors.loss_bn2_student.conv_module.conv.weight"}
        <= more[1].changed
    )


# No teacher, several teachers


@BACKENDS
def test_being_ones_own_teacher(digits: Any, backend: str) -> None:
    shallow = {"type": "BYOTConnector", "in_channel": 8, "out_channel": 16, "num_classes": 10, "expansion": 1}
    branch = {"connector": "shallow", "connector_idx": 1}
    spec = {
        "student_recorders": recorders(middle="bn1"),
        "teacher_recorders": recorders(last="head", feature="mean"),
        "connectors": {"shallow": {**shallow, "pool_size": 4, "stride": 2}},
        "distill_losses": {
            "loss_labels": {"type": "torch.nn.CrossEntropyLoss", "loss_weight": 0.7},
            "loss_soft": {"type": "KLDivergence", "tau": 3, "loss_weight": 0.3},
            "loss_feature": {"type": "L2Loss", "normalize": False, "dist": True, "loss_weight": 0.03},
        },
        "loss_forward_mappings": {
            "loss_labels": {"input": of("middle", "student", **branch), "target": {"from_input": "labels"}},
            "loss_soft": {"preds_S": of("middle", "student", **branch), "preds_T": of("last", "teacher")},
            "loss_feature": {
                "s_feature": of("middle", "student", connector="shallow", connector_idx=0),
                "t_feature": of("feature", "teacher"),
            },
        },
        "self_distillation": True,
        **OWN,
    }
    distiller = prepared(Pooled(8), None, spec, backend)
    course = train(distiller, digits, epochs=8, lr=0.02)
    course.assert_falls(0.7)
    student, connector = distiller.student, distiller.connectors.shallow
    trained = parameters("student", student) | parameters("connectors.shallow", connector)
    moved = statistics("student", student) | statistics("connectors.shallow", connector)
    assert course.changed == trained | moved
    assert distiller.teachers == {}


class Pooled(Net):
    """The same, whose classifier reads the mean of the last stage."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mean, self.head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), nn.Linear(2 * width, 10)
        del self.neck, self.pool

    def forward(self, images: Tensor) -> Tensor:
        value = self.bn2(self.conv2(self.bn1(self.conv1(images)).relu())).relu()
        logits: Tensor = self.head(self.mean(value))
        return logits


def test_several_teachers(digits: Any, experts: dict[str, Net], tmp_path: Path) -> None:
    """Each has its file, its pair and its weight."""
    for name, model in experts.items():
        torch.save(model.state_dict(), tmp_path / name)
    necks = {"student": "neck", "teacher": "wide.neck", "loss": {"type": "L2Loss", "loss_weight": 0.25}}
    spec = {
        "pairs": [
            {"student": "head", "teacher": "deep.head", "loss": {"type": "KLDivergence", "tau": 2, "loss_weight": 3.0}},
            {
                **necks,
                "student_connector": {
                    "type": "torch.nn.Conv2d",
                    "in_channels": 12,
                    "out_channels": 12,
                    "kernel_size": 1,
                    "bias": False,
                },
            },
        ],
        "teacher_ckpt": {name: str(tmp_path / name) for name in experts},
        **ALONE,
    }
    teachers = {"deep": Net(8, seed=6), "wide": Net(12, seed=7)}
    distiller = prepared(Net(4), teachers, spec)
    images = digits[0][0]
    student, connector = copy.deepcopy(distiller.student), copy.deepcopy(distiller.connectors.loss_neck_student)
    out, logits = distiller(images), student(images)
    soft = (experts["deep"](images) / 2).softmax(1)
    found: dict[str, Tensor] = {}
    for name, model in (("student", student), ("wide", experts["wide"])):
        handle = model.get_submodule("neck").register_forward_hook(
            lambda module, args, value, name=name: found.update({name: value})
        )
        model(images)
        handle.remove()
    given, wanted = (value.flatten(1) for value in (connector(found["student"]), found["wide"]))
    distance = (F.normalize(given) - F.normalize(wanted)).square().sum() / len(images)
    kl = F.kl_div((logits / 2).log_softmax(1), soft, reduction="batchmean")
    assert out.losses["loss_head"].item() == pytest.approx(3.0 * 4 * kl.item(), rel=1e-4)
    assert out.losses["loss_neck"].item() == pytest.approx(0.25 * distance.item(), rel=1e-4)
    course = train(distiller, digits, with_labels=False)
    course.assert_falls(0.5)
    trained = parameters("student", distiller.student) | {"connectors.loss_neck_student.weight"}
    assert course.changed == trained | statistics("student", distiller.student)


def test_an_ensemble(digits: Any, experts: dict[str, Net]) -> None:
    teachers = copy.deepcopy(experts)
    spec = {
        "student_recorders": recorders(head="head"),
        "teacher_recorders": recorders(deep="deep.head", wide="wide.head"),
        "connectors": {"mean": {"type": "SoftLabelEnsemble", "tau": 2.0, "weights": [3, 1]}},
        "distill_losses": {"loss": {"type": "KLDivergence", "tau": 2.0}},
        "loss_forward_mappings": {
            "loss": {"preds_S": of("head", "student"), "preds_T": of(["deep", "wide"], "teacher", connector="mean")}
        },
        **ALONE,
    }
    distiller, images = prepared(Net(4), teachers, spec), digits[0][0]
    deep, wide = ((experts[name](images) / 2).softmax(1) for name in ("deep", "wide"))
    kl = F.kl_div((Net(4)(images) / 2).log_softmax(1), 0.75 * deep + 0.25 * wide, reduction="batchmean")
    assert distiller(images).loss.item() == pytest.approx(4 * kl.item(), rel=1e-4)
    course = train(distiller, digits, with_labels=False)
    course.assert_falls(0.4)
    assert course.changed == parameters("student", distiller.student) | statistics("student", distiller.student)


# Until an epoch


@BACKENDS
def test_it_stops_at_an_epoch(digits: Any, teacher: Net, backend: str) -> None:
    calls: list[int] = []
    teacher.conv1.register_forward_hook(lambda *_: calls.append(1))
    connector = {"type": "ConvModuleConnector", "in_channel": 12, "out_channel": 12, "bias": False, "act_cfg": None}
    pair = {"student": "neck", "teacher": "neck", "loss": {"type": "L2Loss"}, "student_connector": connector}
    distiller = prepared(Net(4), teacher, {"pairs": [pair, KD], "stop_epoch": 2, **OWN}, backend)
    student, weight = parameters("student", distiller.student), "connectors.loss_neck_student.conv_module.conv.weight"
    moved = statistics("student", distiller.student)
    for epoch in range(4):
        calls.clear()
        course = train(distiller, digits, epochs=1)
        assert distiller.is_stopped == (epoch >= 2)
        assert course.changed == student | moved | ({weight} if epoch < 2 else set())
        assert (course.losses == [0.0]) == (epoch >= 2)
        assert bool(calls) == (epoch < 2)
        distiller.step()
    out = distiller(digits[0][0], labels=digits[0][1])
    assert_same(out.loss, out.student_loss)


# Without data


def logits_of(loss: Mapping[str, Any], *points: str) -> dict[str, Any]:
    return {"pairs": [{"student": "head", "teacher": "expert.head", "loss": loss}, *map(attention, points)]}


def attention(point: str) -> dict[str, Any]:
    return {"student": point, "teacher": f"expert.{point}", "loss": {"type": "ATLoss", "loss_weight": 100.0}}


DRAWN = {
    "teacher_recorders": recorders(logits="expert.head", feature="expert.neck"),
    "distill_losses": {
        "loss_onehot": {"type": "OnehotLikeLoss", "loss_weight": 0.05},
        "loss_entropy": {"type": "InformationEntropyLoss", "loss_weight": 5.0},
        "loss_activation": {"type": "ActivationLoss", "loss_weight": 0.01},
    },
    "loss_forward_mappings": {
        "loss_onehot": {"preds_T": of("logits", "teacher")},
        "loss_entropy": {"preds_T": of("logits", "teacher")},
        "loss_activation": {"feat_T": of("feature", "teacher")},
    },
}
SIZES = {"img_size": 8, "latent_dim": 16, "hidden_channels": 8}
ADVERSARY = {"type": "KLDivergence", "loss_weight": -1.0, "teacher_detach": False}
WITHOUT_DATA: dict[str, dict[str, Any]] = {
    "DAFL": {
        **logits_of({"type": "KLDivergence", "tau": 6}),
        "data_free": {"generator": {"type": "DAFLGenerator", **SIZES}, "generator_spec": DRAWN, "joint": True},
    },
    "DFAD": {
        **logits_of({"type": "L1Loss"}),
        "data_free": {
            "generator": {"type": "DAFLGenerator", **SIZES, "bn_eps": 1e-5},
            "generator_spec": logits_of({"type": "L1Loss", "loss_weight": -1.0}),
            "student_iter": 5,
            "student_train_first": True,
        },
    },
    "ZSKT": {
        **logits_of({"type": "KLDivergence", "reduction": "mean", "loss_weight": 2.0}, "bn1", "bn2"),
        "data_free": {
            "generator": {"type": "ZSKTGenerator", **SIZES},
            "generator_spec": logits_of({**ADVERSARY, "reduction": "mean", "loss_weight": -2.0}),
            "student_iter": 10,
        },
    },
}
NO_EFFECT = {"DAFLGenerator": {"conv_blocks1.0.bias", "conv_blocks2.0.bias"}}  # before a norm
NO_EFFECT["ZSKTGenerator"] = NO_EFFECT["DAFLGenerator"] | {"conv_blocks2.3.bias"}


@pytest.mark.parametrize(
    ("name", "backend"), [("DAFL", "graph"), ("DFAD", "graph"), ("ZSKT", "graph"), ("DAFL", "eager"), ("ZSKT", "eager")]
)
def test_without_data(teacher: Net, name: str, backend: str) -> None:
    student, spec = Net(4), WITHOUT_DATA[name]
    algorithm = fxkd.build_algorithm(
        {"type": "DataFree", "spec": spec, "backend": backend}, student=student, teachers={"expert": teacher}
    )
    parts = {"student": student, "generator": algorithm.generator, "expert": teacher}
    before = {side: {k: v.clone() for k, v in part.state_dict().items()} for side, part in parts.items()}
    optimizers = {
        "student": torch.optim.Adam(algorithm.student_parameters(), lr=0.005),
        "generator": torch.optim.Adam(algorithm.generator_parameters(), lr=0.001),
    }
    torch.manual_seed(0)
    steps = [algorithm.train_step(ROWS, optimizers) for _ in range(60 // spec["data_free"].get("student_iter", 1))]
    losses = [step["distill.loss"].item() for step in steps]
    assert losses[-1] < 0.6 * losses[0], losses
    changed = {side: changes(before[side], part.state_dict()) for side, part in parts.items()}
    assert changed["student"] == set(student.state_dict())
    without_effect = NO_EFFECT[type(algorithm.generator).__name__]
    assert changed["generator"] | without_effect == set(algorithm.generator.state_dict())
    assert changed["expert"] == set()
    assert not teacher.training
    assert {part.partition(".")[0] for step in steps for part in step} == {"distill", "generator"}
