"""The recipe that compares how positions relate to each other."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.errors import SpecError
from fxkd.recipes._build import align, chain, compared, each, fit_size, map_shape, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Points, Sides
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("fbkd")
def fbkd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = 1.0,
    reduction: int = 4,
    positions: int = 16,
    labels: str | None = None,
) -> Spec:
    """Compare maps where both models attend, and how their positions relate (FBKD's connectors and ``FBKDLoss``).

    Args:
        student: See ``cwd``.
        teacher: See ``cwd``.
        example_inputs: See ``cwd``.
        stages: See ``cwd``.
        points: See ``cwd``.
        weight: Factor of each loss, or a list of one for each pair.
        reduction: What the channels are divided by inside the non-local blocks.
        positions: Side of the map to which a larger one is pooled for the positions that each one sees.
        labels: See ``fitnet``.

    Where sizes or channels differ, the student's map is resized and passes a 1x1 convolution.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There are no stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and Efficient Detectors",
    ICLR 2021, openreview uKhGRvM8QNH.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (8, 8))
    >>> list(fbkd(small, big, torch.zeros(2, 3, 64, 64)).connectors["loss_1_teacher"].items())[2:]
    [('reduction', 4), ('sub_sample', True), ('maxpool_stride', 2), ('compat', False)]
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    if type(positions) is not int or positions < 1:
        raise SpecError([f"positions: is {positions!r}; give a whole number above 0"])
    pairs = sides.stages(points, stages)
    losses = []
    for (one, other), w in zip(pairs, each("weight", weight, len(pairs)), strict=True):
        _, channels, *size = map_shape(other)
        options = {"in_channels": channels, "reduction": reduction}
        if min(size) >= 2 * positions:
            options |= {"sub_sample": True, "maxpool_stride": min(size) // positions, "compat": False}
        mine, theirs = ({"type": f"FBKD{side}Connector", **options} for side in ("Student", "Teacher"))
        before = chain(fit_size(one, other), align(one, other), mine)
        loss = {"type": "FBKDLoss", "loss_weight": w}
        losses.append(compared(one, other, loss, student_connector=before, teacher_connector=theirs))
    return spec_of(sides, losses, labels)
