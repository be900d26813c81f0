"""Strategies: random specs for two given models, out of what a look at them has shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fuzz.parts import Compare, Flat, Labelled, numbers_in
from tests.fuzz.probe import Point, points_of
from tests.support.plain import PATHS

ARGUMENTS = {
    "KLDivergence": ("preds_S", "preds_T"),
    "DistanceWiseRKD": ("preds_S", "preds_T"),
    "ChannelWiseDivergence": ("preds_S", "preds_T"),
    "L1Loss": ("s_feature", "t_feature"),
    "L2Loss": ("s_feature", "t_feature"),
    "ATLoss": ("s_feature", "t_feature"),
}
OF_DIMENSIONS = {2: ("KLDivergence", "DistanceWiseRKD"), 3: (), 4: ("ChannelWiseDivergence", "ATLoss")}


@dataclass
class Draft:
    """A spec as it grows."""

    draw: Any
    points: Mapping[str, Sequence[Point]]
    recorders: dict[str, dict[str, Any]] = field(default_factory=lambda: {"student": {}, "teacher": {}})
    connectors: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)
    mappings: dict[str, Any] = field(default_factory=dict)

    def reference(self, side: str, points: Sequence[Point]) -> tuple[dict[str, Any], Any]:
        """Draw where an argument of a loss comes from; give it with the value that was seen there."""
        point = self.draw(st.sampled_from(points))
        call = self.draw(st.sampled_from([i for i, value in enumerate(point.values) if numbers_in(value)]))
        value = point.values[call]
        reference: dict[str, Any] = {"recorder": self.recorder(side, point), "from_student": side == "student"}
        if call or self.draw(st.booleans()):
            reference["record_idx"] = call - self.draw(st.sampled_from((0, len(point.values))))
        parts = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value if type(value) is dict else {}
        parts = {key: part for key, part in parts.items() if numbers_in(part)}
        if parts and self.draw(st.booleans()):
            reference["data_idx"] = self.draw(st.sampled_from(list(parts)))
            value = parts[reference["data_idx"]]
        return reference, value

    def recorder(self, side: str, point: Point) -> str:
        """Give the name of the recorder of a point."""
        wanted = {"type": point.kind, "source": point.path}
        known = self.recorders[side]
        name = next((name for name, given in known.items() if given == wanted), f"{side[0]}{len(known)}")
        known[name] = wanted
        return name

    def connect(self, value: Any, reference: dict[str, Any], wanted: Any) -> Any:
        """Draw a connector, one that makes the value fit if it can be; give what comes of the value."""
        if not self.draw(st.sampled_from((True, True, False))):
            return value
        name = f"c{len(self.connectors)}"
        if is_one(value) and is_one(wanted) and value.dim() == wanted.dim():
            made = fitting(value, wanted)
            if made is not None:
                self.connectors[name], reference["connector"] = made, name
                return wanted
        self.connectors[name], reference["connector"] = Flat(), name
        if self.draw(st.booleans()):
            reference["connector_idx"] = self.draw(st.integers(0, 1))
        return None

    def compare(self) -> None:
        """Draw a loss."""
        name = self.draw(st.sampled_from(("loss_", "loss_", "loss_", "metric_"))) + str(len(self.losses))
        of_student, value = self.reference("student", self.points["student"])
        other = self.draw(st.sampled_from(("teacher", "teacher", "teacher", "labels", "nothing")))
        if other != "teacher":
            self.losses[name] = Compare() if other == "nothing" else Labelled()
            self.mappings[name] = {"student": of_student}
            if other == "labels":
                self.mappings[name]["labels"] = {"from_input": "labels"}
            return
        of_teacher, wanted = self.reference("teacher", alike(self.draw, self.points["teacher"], value))
        value = self.connect(value, of_student, wanted)
        if self.draw(st.integers(0, 5)) == 5:
            of_student["detach"] = True
        names = ("student", "teacher")
        self.losses[name] = Compare(self.draw(st.sampled_from((1.0, 0.5))))
        if is_one(value) and is_one(wanted) and value.shape == wanted.shape and value.dim() in OF_DIMENSIONS:
            kind = self.draw(st.sampled_from(("L1Loss", "L2Loss", *OF_DIMENSIONS[value.dim()])))
            self.losses[name], names = {"type": kind}, ARGUMENTS[kind]
        self.mappings[name] = dict(zip(names, (of_student, of_teacher), strict=True))


def is_one(value: Any) -> bool:
    return isinstance(value, Tensor)


def alike(draw: Any, points: Sequence[Point], value: Any) -> Sequence[Point]:
    """Prefer points whose values are of the size of ``value``."""
    if not is_one(value) or draw(st.booleans()):
        return points
    same = [point for point in points if all(is_one(one) and one.shape == value.shape for one in point.values)]
    return same or points


def fitting(value: Tensor, wanted: Tensor) -> dict[str, Any] | nn.Module | None:
    """Make a connector that turns one shape into the other."""
    if value.dim() == 4 and value.shape[2:] == wanted.shape[2:] and value.shape[0] == wanted.shape[0]:
        widths = {"in_channel": value.shape[1], "out_channel": wanted.shape[1]}
        return {"type": "ConvModuleConnector", "kernel_size": 1, "norm_cfg": {"type": "BN"}, "act_cfg": None} | widths
    if value.dim() in (2, 3) and value.shape[:-1] == wanted.shape[:-1]:
        return {"type": "LinearConnector", "in_features": value.shape[-1], "out_features": wanted.shape[-1]}
    return None


def deliveries(draw: Any, points: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """Draw what is handed over: points that are called as often on both sides and give values of the same form."""
    from_student = draw(st.sampled_from((False, False, False, True)))
    giving, taking = ("student", "teacher") if from_student else ("teacher", "student")
    fits = [
        (one, other)
        for one in points[giving]
        for other in points[taking]
        if one.kind == other.kind and one.kind != "Parameter" and one.path and other.path and is_taken(one, other)
    ]
    if not fits:
        return {}
    often = [(one, other) for one, other in fits if len(other.values) > 1]
    one, other = draw(st.sampled_from(often or fits))
    key = next(key for prefix, key in PATHS.items() if one.kind.startswith(prefix))
    made: dict[str, Any] = {"type": one.kind, key: one.path, "max_keep_data": len(one.values)}
    made |= {"target": other.path} if one.path != other.path else {}
    made |= {"from_student": True} if from_student else {}
    if one.kind.endswith("Outputs") and all(type(value) in (list, tuple, dict) for value in one.values):
        first = one.values[0]
        keys = list(first) if isinstance(first, dict) else list(range(len(first)))
        part = draw(st.none() | st.sampled_from(keys))
        made |= {} if part is None else {"data_idx": part}
    return {"given": made}


def is_taken(one: Point, other: Point) -> bool:
    """Tell whether the calls of ``one`` can answer those of ``other``."""
    count = len(other.values)
    return len(one.values) >= count and Point(one.kind, "", one.values[:count]).form() == other.form()


@st.composite
def specs(draw: Any, student: nn.Module, teacher: nn.Module | None, x: Tensor) -> dict[str, Any]:
    """Draw a spec."""
    points, given = points_of(student, teacher, {}, x), dict[str, Any]()
    if teacher is not None and draw(st.sampled_from((True, True, False))):
        given = deliveries(draw, points)
        points = points_of(student, teacher, given, x) if given else points
    draft = Draft(draw, points)
    for _ in range(draw(st.integers(0 if given else 1, 3))):
        draft.compare()
    own = own_loss(draw, student)
    add_gradients(draft, student, own)
    return {
        "student_recorders": draft.recorders["student"],
        "teacher_recorders": draft.recorders["teacher"],
        "distill_deliveries": given,
        "connectors": draft.connectors,
        "distill_losses": draft.losses,
        "loss_forward_mappings": draft.mappings,
        "inputs": ["labels"] if "from_input" in str((draft.mappings, own)) else [],
        "student_loss": own,
        "return_output": draw(st.sampled_from((True, True, True, False))),
    }


def own_loss(draw: Any, student: Any) -> Any:
    """Draw the student's own loss."""
    made = {
        "type": "CrossEntropyLoss",
        "args": {"input": "from_output", "target": {"from_input": "labels"}},
        "weight": 0.5,
    }
    return draw(st.sampled_from(("auto", False, made) if student.gives == "logits" else ("auto", False)))


def add_gradients(draft: Draft, student: Any, own: Any) -> None:
    """Compare, now and then, a gradient at a point with a value."""
    has_loss = isinstance(own, dict) or (own == "auto" and student.gives == "loss")
    if not has_loss or not draft.draw(st.booleans()):
        return
    on_the_way = [
        p for p in draft.points["student"] if (p.kind, p.path) in (("ModuleOutputs", "stem"), ("ModuleOutputs", "head"))
    ]
    if not on_the_way:
        return
    point = draft.draw(st.sampled_from(on_the_way))
    draft.recorders["student"]["slope"] = {"type": "ModuleGradients", "source": point.path}
    draft.losses["loss_slope"] = Compare()
    draft.mappings["loss_slope"] = {"student": {"recorder": "slope", "from_student": True}}
