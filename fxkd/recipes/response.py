"""Recipes that compare what the models say: class logits."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.recipes._build import compared, spec_of, vectors
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Sides
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("logits")
def logits(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    temperature: Any = 1.0,
    weight: Any = 3.0,
    reduction: str = "batchmean",
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Compare the softened class distributions of both models by ``KLDivergence``.

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        temperature: The temperature; 4 is common on small data.
        weight: Factor of the loss.
        reduction: As in ``KLDivergence``.
        student_point: What gives the student's logits; by default the layer whose result the model returns.
        teacher_point: The same of the teacher.
        labels: The argument of a call that holds class labels (N,): the student's own loss is then the cross entropy
            of its output. None leaves the own loss to the student.

    Shape:
        Logits (N, C) or (N, C, H, W), of one shape on both sides.

    Raises:
        SpecError: No logits are found, or they differ in shape; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

    >>> import torch
    >>> small, big = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    >>> spec = logits(small, big, torch.zeros(2, 4), temperature=4)
    >>> spec.distill_losses["loss_logits"]["tau"], spec.teacher_recorders
    (4, {'1': Recorder(type='ModuleOutputs', source='1')})
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    loss = {"type": "KLDivergence", "tau": temperature, "reduction": reduction, "loss_weight": weight}
    pair = compared(*sides.logits(student_point, teacher_point), loss, "loss_logits")
    return spec_of(sides, [pair], labels)


@recipe("dist")
def dist(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    inter_weight: Any = 1.0,
    intra_weight: Any = 1.0,
    temperature: Any = 1.0,
    weight: Any = 2.0,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Correlate the predictions of both models over classes and over samples, by ``DISTLoss``.

    Args:
        student: See ``logits``.
        teacher: See ``logits``.
        example_inputs: See ``logits``.
        inter_weight: Weight of the correlation over classes.
        intra_weight: Weight of the correlation over samples.
        temperature: The temperature.
        weight: Factor of the loss.
        student_point: See ``logits``.
        teacher_point: See ``logits``.
        labels: See ``logits``.

    Shape:
        Logits (N, C) of one shape on both sides.

    Raises:
        SpecError: As ``logits``; or the logits are not (N, C).
        CaptureError: A model does not run on the inputs.

    From "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536.

    >>> import torch
    >>> spec = dist(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4))
    >>> spec.distill_losses["loss_logits"]["loss_weight"]
    2.0
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pair = vectors(*sides.logits(student_point, teacher_point))
    loss = {"type": "DISTLoss", "inter_loss_weight": inter_weight, "intra_loss_weight": intra_weight}
    return spec_of(sides, [compared(*pair, loss | {"tau": temperature, "loss_weight": weight}, "loss_logits")], labels)
