"""Recipes for detectors and other models of dense predictions: feature maps of several levels."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.recipes._build import align, chain, compared, each, fit_size, map_shape, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Points, Sides
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("cwd")
def cwd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    temperature: Any = 1.0,
    weight: Any = 10.0,
    labels: str | None = None,
) -> Spec:
    """Compare for each channel where its values lie, by ``ChannelWiseDivergence``.

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        stages: How many of the last stages are compared; None compares all.
        points: Pairs of points in place of the stages, ``[("neck", "neck")]``: paths of modules, or mappings as in a
            pair of a spec. Two points that give several maps each, as many, count as that many pairs.
        temperature: The temperature.
        weight: Factor of each loss, or a list of one for each pair. For logits of a segmentation 5 is usual.
        labels: See ``fitnet``.

    Where sizes or channels differ, the student's map is resized and passes a 1x1 convolution.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There are no stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> cwd(small, big, torch.zeros(2, 3, 8, 8)).connectors
    {'loss_1_student': {'type': 'ConvModuleConnector', 'in_channel': 4, 'out_channel': 8, 'act_cfg': None}}
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.stages(points, stages)
    losses = [
        compared(
            one,
            other,
            {"type": "ChannelWiseDivergence", "tau": temperature, "loss_weight": w},
            student_connector=chain(fit_size(one, other), align(one, other)),
        )
        for (one, other), w in zip(pairs, each("weight", weight, len(pairs)), strict=True)
    ]
    return spec_of(sides, losses, labels)


@recipe("pkd")
def pkd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = 6.0,
    labels: str | None = None,
) -> Spec:
    """Correlate the channels of both models over positions and samples, by ``PKDLoss``.

    Args:
        student: See ``cwd``.
        teacher: See ``cwd``.
        example_inputs: See ``cwd``.
        stages: See ``cwd``.
        points: See ``cwd``; the loss resizes maps by itself.
        weight: Factor of each loss, or a list of one for each pair; for detectors of one stage 10 is usual.
        labels: See ``fitnet``.

    Where channels differ, the student's map passes a 1x1 convolution.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There are no stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient", arXiv
    2207.02039.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> pkd(small, big, torch.zeros(2, 3, 8, 8)).distill_losses
    {'loss_1': {'type': 'PKDLoss', 'loss_weight': 6.0}}
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.stages(points, stages)
    losses = [
        compared(one, other, {"type": "PKDLoss", "loss_weight": w}, student_connector=align(one, other))
        for (one, other), w in zip(pairs, each("weight", weight, len(pairs)), strict=True)
    ]
    return spec_of(sides, losses, labels)


@recipe("mgd")
def mgd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = 2e-5,
    masked: float = 0.65,
    labels: str | None = None,
) -> Spec:
    """Hide a part of the student's maps and generate the teacher's from the rest (``MGDConnector``, ``MGDLoss``).

    Args:
        student: See ``cwd``.
        teacher: See ``cwd``.
        example_inputs: See ``cwd``.
        stages: See ``cwd``.
        points: See ``cwd``.
        weight: Factor of each loss, or a list of one for each pair; the paper takes 7e-5 for classification.
        masked: Which share of the positions is hidden.
        labels: See ``fitnet``.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There are no stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Masked Generative Distillation", arXiv 2205.01529.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> mgd(small, big, torch.zeros(2, 3, 8, 8)).connectors["loss_1_student"]["teacher_channels"]
    8
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pairs = sides.stages(points, stages)
    losses = []
    for (one, other), w in zip(pairs, each("weight", weight, len(pairs)), strict=True):
        channels = {"student_channels": map_shape(one)[1], "teacher_channels": map_shape(other)[1]}
        generator = {"type": "MGDConnector", **channels, "lambda_mgd": masked}
        loss = {"type": "MGDLoss", "alpha_mgd": w}
        losses.append(compared(one, other, loss, student_connector=chain(fit_size(one, other), generator)))
    return spec_of(sides, losses, labels)
