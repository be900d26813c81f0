"""Recipes that compare what the models see: the feature maps of their stages."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.recipes._build import compared, each, fit, fit_size, halved, regressor, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Points, Sides
from fxkd.recipes._spots import Spot
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("fitnet")
def fitnet(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = 2,
    points: Points | None = None,
    weight: Any = 10.0,
    logits_weight: Any = 10.0,
    temperature: Any = 6.0,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Pull the student's last stages to the teacher's through 1x1 convolutions (``L2Loss``), and its logits too.

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        stages: How many of the last stages are compared; None compares all.
        points: Pairs of points in place of the stages, ``[("layer3", "layer3"), ...]``: paths of modules, or mappings
            as in a pair of a spec. Two points that give several maps each count as that many pairs.
        weight: Factor of each loss, or a list of one for each pair.
        logits_weight: Factor of ``KLDivergence`` of the logits; 0 leaves it out.
        temperature: Of that divergence.
        student_point: What gives the student's logits; see ``logits``.
        teacher_point: The same of the teacher.
        labels: The argument of a call that holds class labels (N,): the student's own loss is then the cross entropy
            of its output. None leaves the own loss to the student.

    A stage is what the model does at one size of its maps; stages are paired by that size. Between two maps stands a
    ``ConvModuleConnector`` with batch normalisation and ReLU, else what ``connector: auto`` would choose.

    Shape:
        Maps (N, C, H, W), or tokens (N, L, C) where both sides have as many.

    Raises:
        SpecError: There are no stages of one size, or no logits; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> spec = fitnet(small, big, torch.zeros(2, 3, 8, 8), stages=1, logits_weight=0)
    >>> spec.connectors["loss_1_student"]["out_channel"]
    8
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.stages(points, stages)
    weights = each("weight", weight, len(pairs))
    losses = [
        compared(one, other, {"type": "L2Loss", "loss_weight": w}, student_connector=_hint(one, other))
        for (one, other), w in zip(pairs, weights, strict=True)
    ]
    if logits_weight != 0:
        loss = {"type": "KLDivergence", "tau": temperature, "reduction": "mean", "loss_weight": logits_weight}
        losses.append(compared(*sides.logits(student_point, teacher_point), loss, "loss_logits"))
    return spec_of(sides, losses, labels)


def _hint(student: Spot, teacher: Spot) -> Any:
    are_maps = len(student.shape) == len(teacher.shape) == 4
    return regressor(student, teacher, {"type": "ReLU"}) if are_maps else fit(student, teacher)


@recipe("attention_transfer")
def attention_transfer(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = 250.0,
    labels: str | None = None,
) -> Spec:
    """Compare where both models look, stage by stage, by ``ATLoss``.

    Args:
        student: See ``fitnet``.
        teacher: See ``fitnet``.
        example_inputs: See ``fitnet``.
        stages: How many of the last stages are compared; None compares all.
        points: See ``fitnet``. Maps of other sizes are resized to the teacher's.
        weight: Factor of each loss, or a list of one for each pair.
        labels: See ``fitnet``.

    Shape:
        Maps (N, C, H, W); the channels of a pair may differ.

    Raises:
        SpecError: There are no stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Paying More Attention to Attention", arXiv 1612.03928.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> attention_transfer(small, big, torch.zeros(2, 3, 8, 8), weight=500).distill_losses
    {'loss_1': {'type': 'ATLoss', 'loss_weight': 500}}
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.stages(points, stages)
    weights = each("weight", weight, len(pairs))
    losses = [
        compared(one, other, {"type": "ATLoss", "loss_weight": w}, student_connector=fit_size(one, other))
        for (one, other), w in zip(pairs, weights, strict=True)
    ]
    return spec_of(sides, losses, labels)


@recipe("ofd")
def ofd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = 1.0,
    labels: str | None = None,
) -> Spec:
    """Compare the stages before their last activation, down to a margin below zero, by ``OFDLoss``.

    Args:
        student: See ``fitnet``.
        teacher: See ``fitnet``.
        example_inputs: See ``fitnet``.
        stages: How many of the last stages are compared; None compares all.
        points: See ``fitnet``; the teacher's must be batch normalisations.
        weight: Factor of the last pair; each one before has half the weight of the next. Or a list.
        labels: See ``fitnet``.

    The points are the last ``BatchNorm2d`` of each stage. Its weight and bias in the teacher give the margins, as the
    distillation is prepared: load the teacher's weights before.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There are no stages of one size that end in such a normalisation; a point or an option cannot be.
        CaptureError: A model does not run on the inputs.

    From "A Comprehensive Overhaul of Feature Distillation", arXiv 1904.01866.

    >>> import torch
    >>> widths = (4, 8)
    >>> small, big = (nn.Sequential(nn.Conv2d(3, w, 3, 2, 1), nn.BatchNorm2d(w)) for w in widths)
    >>> spec = ofd(small, big, torch.zeros(2, 3, 8, 8))
    >>> spec.connectors["loss_1_teacher"]
    {'type': 'OFDTeacherConnector'}
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.norms(points, stages)
    losses = [
        compared(
            one,
            other,
            {"type": "OFDLoss", "loss_weight": w},
            student_connector=regressor(one, other, None),
            teacher_connector={"type": "OFDTeacherConnector"},
        )
        for (one, other), w in zip(pairs, halved(weight, len(pairs)), strict=True)
    ]
    return spec_of(sides, losses, labels)
