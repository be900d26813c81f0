"""The specs of the matrix: one of each kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tests.matrix.models import Net

MODELS = "tests.matrix.models"
LABELS = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}
WIDE = 6


@dataclass(frozen=True, kw_only=True)
class Row:
    """A spec and the teacher that it is for.

    Args:
        student: Recorder name -> recorder.
        teacher: The same of the teacher.
        losses: Loss name -> loss, arguments.
        others: Further keys of the spec.
        teachers: Builds what teaches.
    """

    student: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    teachers: Callable[[], Any] = lambda: Net(WIDE, 1)

    def spec(self) -> dict[str, Any]:
        """Write out the keys."""
        return {
            "student_recorders": self.student,
            "teacher_recorders": self.teacher,
            "distill_losses": {name: config for name, (config, _) in self.losses.items()},
            "loss_forward_mappings": {name: arguments for name, (_, arguments) in self.losses.items()},
            "student_loss": False,
        } | self.others


def at(kind: str, source: str) -> dict[str, Any]:
    """Record one point as ``point``."""
    return {"point": {"type": kind, "source": source}}


def both(names: tuple[str, str], connector: str | None = None, **choice: Any) -> dict[str, Any]:
    """Compare ``point`` of both models; a connector is the student's."""
    own = {"recorder": "point", "from_student": True} | choice | ({"connector": connector} if connector else {})
    return {names[0]: own, names[1]: {"recorder": "point", "from_student": False} | choice}


def same(point: dict[str, Any], *losses: str, **others: Any) -> Row:
    """Compare the same point of both models."""
    made = {f"loss_{n}": ({"type": kind}, both(ARGUMENTS[kind], **others)) for n, kind in enumerate(losses)}
    return Row(student=point, teacher=point, losses=made)


PREDICTIONS, FEATURES = ("preds_S", "preds_T"), ("s_feature", "t_feature")
ARGUMENTS = dict.fromkeys(("L1Loss", "L2Loss", "ATLoss"), FEATURES)
ARGUMENTS |= dict.fromkeys(("KLDivergence", "DistanceWiseRKD", "AngleWiseRKD", "ChannelWiseDivergence"), PREDICTIONS)
CONV = {"type": "ConvModuleConnector", "in_channel": 4, "out_channel": WIDE, "norm_cfg": {"type": "BN"}}
LINEAR = {"type": "LinearConnector", "in_features": 4, "out_features": WIDE}


def connected(row: Row, connector: dict[str, Any]) -> Row:
    """Add the connector ``fit``."""
    return Row(student=row.student, teacher=row.teacher, losses=row.losses, others={"connectors": {"fit": connector}})


def delivered(**delivery: Any) -> Row:
    """Hand a value over, and compare what the heads make of it."""
    row = same(at("ModuleOutputs", "head"), "KLDivergence")
    others = {"distill_deliveries": {"given": delivery}}
    return Row(student=row.student, teacher=row.teacher, losses=row.losses, others=others, teachers=lambda: Net(4, 1))


def with_labels() -> Row:
    row = same(at("ModuleOutputs", ""), "KLDivergence")
    others = {"student_loss": LABELS | {"weight": 0.5}, "inputs": ["labels"]}
    return Row(student=row.student, teacher=row.teacher, losses=row.losses, others=others)


def own_teacher() -> Row:
    """Let the first block learn from the second."""
    first, second = at("ModuleOutputs", "blocks.0"), at("ModuleOutputs", "blocks.1")
    losses = {"loss_0": ({"type": "L2Loss"}, both(FEATURES))}
    others = {"self_distillation": True}
    return Row(student=first, teacher=second, losses=losses, others=others, teachers=lambda: None)


def several() -> Row:
    """Learn the logits of one teacher and the features of another."""
    of_teachers = {
        "point": {"type": "ModuleOutputs", "source": "wide.head"},
        "feature": {"type": "ModuleOutputs", "source": "narrow.blocks.1"},
    }
    of_student = {"point": {"type": "ModuleOutputs", "source": "head"}}
    of_student["feature"] = {"type": "ModuleOutputs", "source": "blocks.1"}
    feature = {
        "s_feature": {"recorder": "feature", "from_student": True},
        "t_feature": {"recorder": "feature", "from_student": False},
    }
    losses = {"loss_0": ({"type": "KLDivergence"}, both(PREDICTIONS)), "loss_1": ({"type": "ATLoss"}, feature)}
    teachers: Callable[[], dict[str, nn.Module]] = lambda: {"wide": Net(WIDE, 1), "narrow": Net(4, 2)}  # noqa: E731
    return Row(student=of_student, teacher=of_teachers, losses=losses, teachers=teachers)


def slopes() -> Row:
    """Compare the gradient at a point of the student with the value at one of the teacher."""
    student, teacher = at("ModuleGradients", "blocks.1"), at("ModuleOutputs", "blocks.1")
    losses = {"loss_0": ({"type": "L2Loss"}, both(FEATURES))}
    others = {"student_loss": LABELS, "inputs": ["labels"]}
    return Row(student=student, teacher=teacher, losses=losses, others=others, teachers=lambda: Net(4, 1))


ROWS: dict[str, Row] = {
    "logits, own loss on labels": with_labels(),
    "feature, conv connector": connected(same(at("ModuleOutputs", "blocks.0"), "L2Loss", connector="fit"), CONV),
    "attention transfer": same(at("ModuleOutputs", "blocks.1"), "ATLoss"),
    "relations (RKD)": same(at("ModuleInputs", "head"), "DistanceWiseRKD", "AngleWiseRKD", data_idx=0),
    "channels (CWD)": connected(
        same(at("ModuleOutputs", "blocks.1"), "ChannelWiseDivergence", connector="fit"), CONV | {"norm_cfg": None}
    ),
    "output of a function, second call": connected(
        same(at("FunctionOutputs", f"{MODELS}.spread"), "L1Loss", connector="fit", record_idx=1), CONV
    ),
    "input of a method": same(at("MethodInputs", f"{MODELS}.Net.mix"), "ATLoss", data_idx=0),
    "input of a module, second call": connected(
        same(at("ModuleInputs", "shared"), "L2Loss", connector="fit", record_idx=1, data_idx=0), LINEAR
    ),
    "parameter": connected(same(at("Parameter", "head.weight"), "L2Loss", connector="fit"), LINEAR),
    "delivery of a function": delivered(type="FunctionOutputs", func_path=f"{MODELS}.spread", max_keep_data=2),
    "delivery of a module": delivered(type="ModuleOutputs", source="blocks.0"),
    "its own teacher": own_teacher(),
    "several teachers": several(),
    "gradient at a point": slopes(),
}
