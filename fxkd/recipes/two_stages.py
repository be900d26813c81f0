"""Recipes of two stages: something is trained first, and used in a second distillation."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxkd.errors import SpecError
from fxkd.recipes._build import chain, compared, fit_size, halved, map_shape, regressor, spec_of
from fxkd.recipes._registry import recipe
from fxkd.recipes._sides import Points, Sides, choose
from fxkd.recipes._spots import Spot, given_spot
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("ab")
def ab(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stage: str,
    stages: int | None = None,
    points: Points | None = None,
    weight: Any = None,
    margin: float = 1.0,
    temperature: Any = 1.0,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Let the student's neurons fire where the teacher's do (``ABLoss``), then learn the logits.

    Args:
        student: The model that learns; in the second stage the one that the first has trained.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        stage: ``"pretrain"`` compares the stages and leaves out the student's own loss; ``"logits"`` compares logits by
            ``KLDivergence``.
        stages: How many of the last stages are compared; None compares all.
        points: Pairs of points before activations in place of the stages; see ``fitnet``.
        weight: In the first stage (by default 1) the factor of the last pair, each one before having half the weight of
            the next, or a list; in the second (6.25) that of the divergence.
        margin: How far from zero the student's neurons are pushed.
        temperature: Of the divergence.
        student_point: What gives the student's logits; see ``logits``.
        teacher_point: The same of the teacher.
        labels: In the second stage the argument of a call that holds class labels (N,), for the student's own cross
            entropy; see ``fitnet``.

    The points are the last ``BatchNorm2d`` of each stage, behind a 1x1 convolution with batch normalisation on the
    student's side.

    Shape:
        Maps (N, C, H, W); logits of one shape.

    Raises:
        SpecError: There are no such stages of one size; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", arXiv 1811.03233.

    >>> import torch
    >>> widths = (4, 8)
    >>> small, big = (nn.Sequential(nn.Conv2d(3, w, 3, 2, 1), nn.BatchNorm2d(w)) for w in widths)
    >>> spec = ab(small, big, torch.zeros(2, 3, 8, 8), stage="pretrain")
    >>> spec.distill_losses, spec.student_loss
    ({'loss_1': {'type': 'ABLoss', 'loss_weight': 1.0, 'margin': 1.0}}, False)
    """
    choose("stage", stage, ("pretrain", "logits"))
    sides = Sides.of(student, teacher, example_inputs, labels)
    if stage == "logits":
        loss = {"type": "KLDivergence", "tau": temperature, "reduction": "mean"}
        loss["loss_weight"] = 6.25 if weight is None else weight
        pair = compared(*sides.logits(student_point, teacher_point), loss, "loss_logits")
        return spec_of(sides, [pair], labels)
    pairs = sides.norms(points, stages)
    losses = [
        compared(
            one,
            other,
            {"type": "ABLoss", "loss_weight": w, "margin": margin},
            student_connector=regressor(one, other, None),
        )
        for (one, other), w in zip(pairs, halved(1.0 if weight is None else weight, len(pairs)), strict=True)
    ]
    return spec_of(sides, losses, student_loss=False)


@recipe("factor_transfer")
def factor_transfer(
    student: nn.Module,
    teacher: Teacher,
    example_inputs: Any,
    *,
    stage: str,
    rate: Any = 0.5,
    weight: Any = 1.0,
    pretrained: str | None = None,
    student_point: Any = None,
    teacher_point: Any = None,
    labels: str | None = None,
) -> Spec:
    """Learn a code of the teacher's last feature (``Paraphraser``), then give the student the code (``FTLoss``).

    Args:
        student: The model that learns.
        teacher: The model it learns from, or a mapping with it as the one entry.
        example_inputs: Arguments for both, (N, C, H, W) images say; the models run once, without values.
        stage: ``"pretrain"`` trains the paraphraser alone to reconstruct the teacher's feature; ``"train"`` trains the
            student and its ``Translator`` to give the code.
        rate: Channels of the code over those of the teacher's feature.
        weight: Factor of the loss.
        pretrained: In the second stage a file with the first distiller's state, of which the paraphraser is taken. Or
            load it by hand: both call it ``paraphraser``.
        student_point: The student's feature; by default its last stage of a size that the teacher has too.
        teacher_point: The teacher's feature; give both points or none.
        labels: In the second stage the argument of a call that holds class labels (N,), for the student's own cross
            entropy; see ``fitnet``.

    Shape:
        Maps (N, C, H, W).

    Raises:
        SpecError: There is no such stage; a point or an option cannot be; says what to pass.
        CaptureError: A model does not run on the inputs.

    From "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv 1802.04977.

    >>> import torch
    >>> small, big = (nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()) for width in (4, 8))
    >>> spec = factor_transfer(small, big, torch.zeros(2, 3, 8, 8), stage="train")
    >>> spec.connectors["translator"]
    {'type': 'Translator', 'in_channel': 4, 'out_channel': 4}
    """
    choose("stage", stage, ("pretrain", "train"))
    sides = Sides.of(student, teacher, example_inputs, labels)
    mine, theirs = _features(sides, student_point, teacher_point)
    channels = map_shape(theirs)[1]
    code = round(channels * rate) if isinstance(rate, (int, float)) else 0
    if code < 1:
        raise SpecError([f"rate: is {rate!r}; give what {channels} channels times it are those of a code, at least 1"])
    paraphraser = {"type": "Paraphraser", "in_channel": channels, "out_channel": code, "phase": stage}
    if stage == "pretrain":
        return _pretrain(theirs, paraphraser, weight)
    translator = {"type": "Translator", "in_channel": map_shape(mine)[1], "out_channel": code}
    mapping = {
        "s_feature": mine.reference("feature", True, connector="translator"),
        "t_feature": theirs.reference("feature", False, connector="paraphraser"),
    }
    keys = {} if pretrained is None else {"pretrained": pretrained}
    return spec_of(
        sides,
        [],
        labels,
        student_recorders={"feature": mine.recorder},
        teacher_recorders={"feature": theirs.recorder},
        connectors={"translator": chain(fit_size(mine, theirs), translator), "paraphraser": paraphraser},
        distill_losses={"loss_factor": {"type": "FTLoss", "loss_weight": weight}},
        loss_forward_mappings={"loss_factor": mapping},
        **keys,
    )


def _features(sides: Sides, student_point: Any, teacher_point: Any) -> tuple[Spot, Spot]:
    if student_point is None and teacher_point is None:
        return sides.stages(None, 1)[0]
    if student_point is None or teacher_point is None:
        given, missing = ("teacher", "student") if student_point is None else ("student", "teacher")
        raise SpecError([f"{missing}_point: is missing, and {given}_point is given; give both, or none"])
    return (
        given_spot(student_point, "student_point", sides.student),
        given_spot(teacher_point, "teacher_point", sides.teacher),
    )


def _pretrain(teacher: Spot, paraphraser: Mapping[str, Any], weight: Any) -> Spec:
    """Compare the teacher's feature with its reconstruction; the student is not run."""
    mapping = {
        "s_feature": teacher.reference("feature", False, connector="paraphraser"),
        "t_feature": teacher.reference("feature", False),
    }
    return Spec.load(
        {
            "teacher_recorders": {"feature": teacher.recorder},
            "connectors": {"paraphraser": dict(paraphraser)},
            "distill_losses": {"loss_reconstruction": {"type": "L2Loss", "loss_weight": weight}},
            "loss_forward_mappings": {"loss_reconstruction": mapping},
            "student_loss": False,
            "student_trainable": False,
            "return_output": False,
        }
    )
