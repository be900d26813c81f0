"""Recipes that compare class logits by what the labels say of each sample."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.recipes._build import compared, spec_of, vectors
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Sides
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("dkd")
def dkd(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    labels: str = "labels",
    temperature: Any = 1.0,
    alpha: Any = 1.0,
    beta: Any = 0.5,
    weight: Any = 1.0,
    reduction: str = "batchmean",
    student_point: Any = None,
    teacher_point: Any = None,
) -> Spec:
    """Compare the labelled class and the classes beside it apart, by ``DKDLoss``.

    Args:
        student: See ``logits``.
        teacher: See ``logits``.
        example_inputs: See ``logits``.
        labels: The argument of a call that holds class labels (N,); the student's own loss is its cross entropy.
        temperature: The temperature.
        alpha: Weight of the labelled class. The defaults are those for ImageNet; on CIFAR-100 the paper takes a beta
            of 8 and a temperature of 4.
        beta: Weight of the other classes.
        weight: Factor of the loss.
        reduction: As in ``DKDLoss``. MMRazor's configuration sums over the batch (``"sum"``), 32 samples a GPU.
        student_point: See ``logits``.
        teacher_point: See ``logits``.

    Shape:
        Logits (N, C) of one shape on both sides.

    Raises:
        SpecError: As ``logits``; or the logits are not (N, C).
        CaptureError: A model does not run on the inputs.

    From "Decoupled Knowledge Distillation", arXiv 2203.08679.

    >>> import torch
    >>> spec = dkd(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4), beta=8)
    >>> spec.inputs, spec.student_loss.type, spec.distill_losses["loss_logits"]["beta"]
    (('labels',), 'CrossEntropyLoss', 8)
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    pair = vectors(*sides.logits(student_point, teacher_point))
    loss = {"type": "DKDLoss", "tau": temperature, "alpha": alpha, "beta": beta, "reduction": reduction}
    return spec_of(sides, [compared(*pair, loss | {"loss_weight": weight}, "loss_logits", labels)], labels)


@recipe("wsld")
def wsld(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    labels: str = "labels",
    temperature: Any = 2.0,
    weight: Any = 2.5,
    student_point: Any = None,
    teacher_point: Any = None,
) -> Spec:
    """Weigh the soft labels of each sample by how much more the teacher knows about it, by ``WSLD``.

    Args:
        student: See ``logits``.
        teacher: See ``logits``.
        example_inputs: See ``logits``.
        labels: The argument of a call that holds class labels (N,); the student's own loss is its cross entropy.
        temperature: The temperature.
        weight: Factor of the loss.
        student_point: See ``logits``.
        teacher_point: See ``logits``.

    Shape:
        Logits (N, C) of one shape on both sides.

    Raises:
        SpecError: As ``logits``; or the logits are not (N, C).
        CaptureError: A model does not run on the inputs.

    From "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective", arXiv 2102.00650.

    >>> import torch
    >>> spec = wsld(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4))
    >>> spec.distill_losses["loss_logits"]["num_classes"]
    3
    """
    sides = Sides.of(student, teacher, example_inputs, labels)
    mine, theirs = vectors(*sides.logits(student_point, teacher_point))
    loss = {"type": "WSLD", "tau": temperature, "loss_weight": weight, "num_classes": mine.shape[1]}
    return spec_of(sides, [compared(mine, theirs, loss, "loss_logits", labels)], labels)
