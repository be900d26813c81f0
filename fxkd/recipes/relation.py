"""Recipes that compare how samples relate to each other."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.errors import SpecError
from fxkd.recipes._build import chain, compared, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Sides
from fxkd.recipes._spots import Spot
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("rkd")
def rkd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    distance_weight: Any = 25.0,
    angle_weight: Any = 50.0,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Compare the distances and the angles between the samples' features (``DistanceWiseRKD``, ``AngleWiseRKD``).

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        distance_weight: Factor of the loss of distances; 0 leaves it out.
        angle_weight: Factor of the loss of angles; 0 leaves it out.
        student_point: The student's feature; by default what its classifier takes.
        teacher_point: The same of the teacher.
        labels: The argument of a call that holds class labels (N,): the student's own loss is then the cross entropy
            of its output. None leaves the own loss to the student.

    Shape:
        Features (N, C), whose C may differ; a map (N, C, H, W) is averaged over its positions.

    Raises:
        SpecError: No layer makes logits of one feature, or both weights are 0; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Relational Knowledge Distillation", arXiv 1904.05068.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3)) for width in (5, 9))
    >>> spec = rkd(small, big, torch.zeros(2, 4))
    >>> list(spec.distill_losses), spec.student_recorders
    (['loss_distance', 'loss_angle'], {'1': Recorder(type='ModuleInputs', source='1')})
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    mine, theirs = sides.pooled(student_point, teacher_point)
    kinds = {"loss_distance": ("DistanceWiseRKD", distance_weight), "loss_angle": ("AngleWiseRKD", angle_weight)}
    used = {name: {"type": kind, "loss_weight": weight} for name, (kind, weight) in kinds.items() if weight != 0}
    if not used:
        raise SpecError(["distance_weight: is 0, and so is angle_weight: nothing is left to compare"])
    connectors = {"student_connector": chain(*_average(mine)), "teacher_connector": chain(*_average(theirs))}
    return spec_of(sides, [compared(mine, theirs, loss, name, **connectors) for name, loss in used.items()], labels)


@recipe("crd")
def crd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    sample_n: int,
    data_samples: str = "data_samples",
    neg_num: int = 16384,
    dim_out: int = 128,
    temperature: Any = 0.07,
    momentum: float = 0.5,
    weight: Any = 0.8,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Contrast each sample's features with banks of other samples', by ``CRDLoss``.

    Args:
        student: See ``rkd``.
        teacher: See ``rkd``.
        example_inputs: See ``rkd``.
        sample_n: How many samples the training data has.
        data_samples: The argument of a call that holds the indices of the samples; ``fxkd.crd_data`` makes them.
        neg_num: How many other samples each is contrasted with; those of the data.
        dim_out: Width of the vectors that are compared.
        temperature: Divides the products.
        momentum: How much of a bank's row stays.
        weight: Factor of the loss.
        student_point: See ``rkd``.
        teacher_point: See ``rkd``.
        labels: See ``rkd``.

    Shape:
        Features (N, C), whose C may differ; a map (N, C, H, W) is averaged over its positions.

    Raises:
        SpecError: No layer makes logits of one feature, or its width is not known; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Contrastive Representation Distillation", arXiv 1910.10699.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3)) for width in (5, 9))
    >>> spec = crd(small, big, torch.zeros(2, 4), sample_n=100, neg_num=10)
    >>> spec.connectors["loss_contrast_teacher"], spec.inputs
    ({'type': 'CRDConnector', 'dim_in': 9, 'dim_out': 128}, ('data_samples',))
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    mine, theirs = sides.pooled(student_point, teacher_point)
    loss = {"type": "CRDLoss", "loss_weight": weight, "temperature": temperature, "neg_num": neg_num}
    loss |= {"sample_n": sample_n, "dim_out": dim_out, "momentum": momentum, "compat": False}
    pair = compared(
        mine,
        theirs,
        loss,
        "loss_contrast",
        student_connector=_vector(mine, dim_out),
        teacher_connector=_vector(theirs, dim_out),
        args={"data_samples": {"from_input": data_samples}},
    )
    return spec_of(sides, [pair], labels, inputs=[data_samples])


def _vector(spot: Spot, dim_out: int) -> Any:
    if len(spot.shape) not in (2, 4):
        gives = f"gives {spot.shape}" if spot.shape else "gives no one tensor that is known beforehand"
        raise SpecError([f"points: {spot.point['source']!r} {gives}; crd needs a feature (N, C) or (N, C, H, W)"])
    return chain(*_average(spot), {"type": "CRDConnector", "dim_in": spot.shape[1], "dim_out": dim_out})


def _average(spot: Spot) -> list[dict[str, Any]]:
    """Give what averages a map over its positions, if it has several."""
    if len(spot.shape) != 4 or spot.shape[2:] == (1, 1):
        return []
    return [{"type": "torch.nn.AdaptiveAvgPool2d", "output_size": 1}, {"type": "torch.nn.Flatten"}]
