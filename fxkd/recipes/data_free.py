"""Recipes without data: a generator makes images, and learns too. Each gives the student's spec and the generator's."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.recipes._build import compared, each, fit_size
from fxkd.recipes._points import pooled
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Points, Sides
from fxkd.recipes._spots import Spot, given_spot
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]
Specs = tuple[Spec, Spec]


@recipe("dafl")
def dafl(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    temperature: Any = 6.0,
    weight: Any = 1.0,
    onehot_weight: Any = 0.05,
    entropy_weight: Any = 5.0,
    activation_weight: Any = 0.01,
    student_point: Any = None,
    teacher_point: Any = None,
    feature_point: Any = None,
) -> Specs:
    """Generate images about which the teacher is sure, of all classes alike, and learn its logits on them.

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry, whose name then begins its paths.
        example_inputs: Images as the generator makes them, (N, C, H, W); the models run once, without values.
        temperature: Of the student's ``KLDivergence``.
        weight: Its factor.
        onehot_weight: Factor of the generator's ``OnehotLikeLoss``.
        entropy_weight: Factor of the generator's ``InformationEntropyLoss``.
        activation_weight: Factor of the generator's ``ActivationLoss``.
        student_point: What gives the student's logits; by default the layer whose result the model returns.
        teacher_point: The same of the teacher.
        feature_point: The teacher's feature that shall be strong; by default what its classifier takes.

    Returns:
        The student's spec and the generator's. Gradients of the second reach the images through the teacher.

    Raises:
        SpecError: No logits are found, or they differ in shape; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "DAFL: Data-Free Learning of Student Networks", arXiv 1904.01186.

    >>> import torch
    >>> small, big = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    >>> of_student, of_generator = dafl(small, {"big": big}, torch.zeros(2, 4))
    >>> list(of_generator.distill_losses), of_generator.teacher_gradients
    (['loss_onehot', 'loss_entropy', 'loss_activation'], True)
    >>> of_generator.teacher_recorders["feature"]
    Recorder(type='ModuleInputs', source='big.1')
    """
    sides = Sides.of(student, teacher, example_inputs)
    mine, theirs = sides.logits(student_point, teacher_point)
    feature = _feature(sides, feature_point)
    loss = {"type": "KLDivergence", "tau": temperature, "loss_weight": weight}
    said = theirs.reference("logits", False)
    seen = feature.reference("feature", False)
    generator = {
        "teacher_recorders": {"logits": theirs.recorder, "feature": feature.recorder},
        "distill_losses": {
            "loss_onehot": {"type": "OnehotLikeLoss", "loss_weight": onehot_weight},
            "loss_entropy": {"type": "InformationEntropyLoss", "loss_weight": entropy_weight},
            "loss_activation": {"type": "ActivationLoss", "loss_weight": activation_weight},
        },
        "loss_forward_mappings": {
            "loss_onehot": {"preds_T": said},
            "loss_entropy": {"preds_T": said},
            "loss_activation": {"feat_T": seen},
        },
    }
    return _specs([compared(mine, theirs, loss, "loss_logits")], generator)


@recipe("dfad")
def dfad(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    weight: Any = 1.0,
    generator_weight: Any = -1.0,
    student_point: Any = None,
    teacher_point: Any = None,
) -> Specs:
    """Let the generator look for images on which student and teacher differ (``L1Loss``), and the student follow.

    Args:
        student: See ``dafl``.
        teacher: See ``dafl``.
        example_inputs: See ``dafl``.
        weight: Factor of the student's loss.
        generator_weight: Factor of the generator's, which is the same loss: below 0.
        student_point: See ``dafl``.
        teacher_point: See ``dafl``.

    Returns:
        The student's spec and the generator's.

    Raises:
        SpecError: No logits are found, or they differ in shape; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Data-Free Adversarial Distillation", arXiv 1912.11006.

    >>> import torch
    >>> small, big = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    >>> [spec.distill_losses["loss_logits"]["loss_weight"] for spec in dfad(small, big, torch.zeros(2, 4))]
    [1.0, -1.0]
    """
    mine, theirs = Sides.of(student, teacher, example_inputs).logits(student_point, teacher_point)
    pairs = [
        compared(mine, theirs, {"type": "L1Loss", "loss_weight": one}, "loss_logits")
        for one in (weight, generator_weight)
    ]
    return _specs(pairs[:1], {"pairs": pairs[1:]})


@recipe("zskt")
def zskt(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stages: int | None = None,
    points: Points | None = None,
    attention_weight: Any = 250.0,
    weight: Any = 2.0,
    generator_weight: Any = -2.0,
    temperature: Any = 1.0,
    student_point: Any = None,
    teacher_point: Any = None,
) -> Specs:
    """Let the generator look for images on which the predictions differ; the student follows, with its attention too.

    Args:
        student: See ``dafl``.
        teacher: See ``dafl``.
        example_inputs: See ``dafl``.
        stages: How many of the last stages ``ATLoss`` compares; None compares all.
        points: Pairs of points in place of the stages; see ``fitnet``.
        attention_weight: Factor of each ``ATLoss``, or a list of one for each pair.
        weight: Factor of the student's ``KLDivergence``.
        generator_weight: Factor of the generator's: below 0.
        temperature: Of both.
        student_point: See ``dafl``.
        teacher_point: See ``dafl``.

    Returns:
        The student's spec and the generator's.

    Raises:
        SpecError: There are no stages of one size, or no logits; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Zero-shot Knowledge Transfer via Adversarial Belief Matching", arXiv 1905.09768.

    >>> import torch
    >>> def net(width):
    ...     return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(width, 5))
    >>> of_student, of_generator = zskt(net(4), net(8), torch.zeros(2, 3, 8, 8))
    >>> list(of_student.distill_losses), of_generator.distill_losses["loss_logits"]["teacher_detach"]
    (['loss_0', 'loss_logits'], False)
    """
    sides = Sides.of(student, teacher, example_inputs)
    pairs, logits = sides.stages(points, stages), sides.logits(student_point, teacher_point)
    weights = each("attention_weight", attention_weight, len(pairs))
    losses = [
        compared(one, other, {"type": "ATLoss", "loss_weight": w}, student_connector=fit_size(one, other))
        for (one, other), w in zip(pairs, weights, strict=True)
    ]
    loss = {"type": "KLDivergence", "tau": temperature, "reduction": "mean"}
    losses.append(compared(*logits, loss | {"loss_weight": weight}, "loss_logits"))
    against = loss | {"loss_weight": generator_weight, "teacher_detach": False}
    return _specs(losses, {"pairs": [compared(*logits, against, "loss_logits")]})


def _feature(sides: Sides, feature_point: Any) -> Spot:
    if feature_point is None:
        return pooled(sides.teacher)
    return given_spot(feature_point, "feature_point", sides.teacher)


def _specs(pairs: list[dict[str, Any]], generator: Mapping[str, Any]) -> Specs:
    of_student = Spec.load({"pairs": pairs, "student_loss": False})
    return of_student, Spec.load({**generator, "student_loss": False, "teacher_gradients": True})
