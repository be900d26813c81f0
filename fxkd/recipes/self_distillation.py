"""Recipes of students that are their own teachers."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from torch import nn

from fxkd.errors import SpecError
from fxkd.recipes._build import map_shape, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Sides
from fxkd.recipes._spots import Spot, given_spot
from fxkd.spec import Spec


@recipe("byot")
def byot(
    student: nn.Module,
    teacher: None,
    example_inputs: Any,
    *,
    labels: str = "labels",
    points: Sequence[Any] | None = None,
    feature_weight: Any = 0.03,
    label_weight: Any = 0.7,
    logits_weight: Any = 0.3,
    temperature: Any = 3.0,
    student_point: Any = None,
    teacher_point: Any = None,
) -> Spec:
    """Hang a classifier on each stage but the last, which learns from labels and from the end of the same model.

    Args:
        student: The model.
        teacher: None: the student teaches itself.
        example_inputs: Its arguments, (N, C, H, W) images say; it runs once, without values.
        labels: The argument of a call that holds class labels (N,); the student's own loss is its cross entropy.
        points: Paths of modules that give maps, in place of all stages but the last.
        feature_weight: Factor of the distance (``L2Loss``) of each branch's feature to the last one; that of the
            deepest branch is not compared, as in MMRazor's configuration.
        label_weight: Factor of the cross entropy of each branch's logits.
        logits_weight: Factor of the ``KLDivergence`` of each branch's logits from the last ones.
        temperature: Of that divergence.
        student_point: What gives the student's logits; by default the layer whose result it returns.
        teacher_point: The feature that the branches learn; by default what that layer takes.

    Shape:
        Maps (N, C, H, W), where C doubled a few times is the width of the last feature, (N, C').

    Raises:
        SpecError: There is a teacher; there are no stages; the widths do not fit; says what to pass.
        CaptureError: The model does not run on the inputs.

    From "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation", arXiv
    1905.08094.

    >>> import torch
    >>> layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    >>> spec = byot(nn.Sequential(*layers, nn.Linear(8, 5)), None, torch.zeros(2, 3, 16, 16))
    >>> spec.connectors["branch_0"]["pool_size"], list(spec.distill_losses)
    (4, ['loss_label_0', 'loss_logits_0'])
    """
    if teacher is not None:
        raise SpecError(["teacher: is given, and in byot the student is its own: give None"])
    if not isinstance(labels, str):
        raise SpecError([f"labels: is {labels!r}; give the name of the argument of a call that holds them"])
    sides = Sides.of(student, None, example_inputs, labels)
    logits, _ = sides.logits(student_point, student_point)
    _, last = sides.pooled(teacher_point, teacher_point)
    branches = _branches(sides, points)
    flat = {"connector": "flat"} if len(last.shape) == 4 and len(branches) > 1 else {}
    pool = [{"type": "torch.nn.AdaptiveAvgPool2d", "output_size": 1}, {"type": "torch.nn.Flatten"}]
    losses: dict[str, Any] = {}
    mappings: dict[str, Any] = {}
    for index, spot in enumerate(branches):
        name, branch = spot.name, f"branch_{spot.name}"
        feature, said = (spot.reference(name, True, connector=branch, connector_idx=part) for part in (0, 1))
        if index < len(branches) - 1:
            wanted = {"type": "L2Loss", "normalize": False, "dist": True, "loss_weight": feature_weight}
            losses[f"loss_feature_{name}"] = wanted
            mappings[f"loss_feature_{name}"] = {
                "s_feature": feature,
                "t_feature": last.reference("feature", False, **flat),
            }
        losses[f"loss_label_{name}"] = {"type": "torch.nn.CrossEntropyLoss", "loss_weight": label_weight}
        mappings[f"loss_label_{name}"] = {"input": said, "target": {"from_input": labels}}
        losses[f"loss_logits_{name}"] = {"type": "KLDivergence", "tau": temperature, "loss_weight": logits_weight}
        mappings[f"loss_logits_{name}"] = {"preds_S": said, "preds_T": logits.reference("logits", False)}
    compared = {"feature": last.recorder} if len(branches) > 1 else {}
    return spec_of(
        sides,
        [],
        labels,
        self_distillation=True,
        student_recorders={spot.name: spot.recorder for spot in branches},
        teacher_recorders={"logits": logits.recorder, **compared},
        connectors={f"branch_{spot.name}": _branch(spot, last, logits) for spot in branches}
        | ({"flat": pool} if flat else {}),
        distill_losses=losses,
        loss_forward_mappings=mappings,
    )


def _branches(sides: Sides, points: Any) -> list[Spot]:
    if points is None:
        found = [one for one, _ in sides.stages(None)][:-1]
        if not found:
            raise SpecError(["points: the student has one stage, and byot needs more; pass points=['<path>', ...]"])
        return found
    if not isinstance(points, (list, tuple)) or not points:
        raise SpecError([f"points: is {points!r}; give a list of points of the student, such as ['layer1', 'layer2']"])
    return [given_spot(one, f"points[{index}]", sides.student) for index, one in enumerate(points)]


def _branch(spot: Spot, last: Spot, logits: Spot) -> dict[str, Any]:
    """Size a branch: as many halvings as it takes to come to the last width, then what is left is averaged."""
    channels, height, width = map_shape(spot)[1:]
    wanted = last.shape[1] if len(last.shape) in (2, 4) else 0
    steps = next((step for step in count() if channels << step >= wanted), 0)
    if channels << steps != wanted or height != width:
        what = f"{spot.point['source']!r} gives {spot.shape}, and the last feature is {last.shape}"
        rule = "a branch doubles the channels of a square map until they are those of the feature"
        raise SpecError([f"points: {what}; {rule}: choose other points"])
    side = height
    for _ in range(steps):
        side = (side + 1) // 2
    config = {"type": "BYOTConnector", "in_channel": channels, "out_channel": wanted, "num_classes": logits.shape[1]}
    return config | {"expansion": 1, "pool_size": side, "stride": 2}
