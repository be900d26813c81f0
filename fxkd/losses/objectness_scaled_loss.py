"""Distance of two one-stage detectors' predictions, each counted as far as the teacher sees an object there."""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_maps, check_numbers, check_same_shape, check_whole, refusal
from fxkd.losses._values import full, per_sample
from fxkd.registry import loss


class _Predictions(NamedTuple):
    """What a head predicts at each anchor of each cell."""

    boxes: Tensor  # (N, anchors, 4, H, W)
    objectness: Tensor  # (N, anchors, H, W)
    classes: Tensor  # (N, anchors, classes, H, W)


def suppress_overlaps(objectness: Tensor, classes: Tensor, neighbourhood: int) -> Tensor:
    """Set to 0 the objectness of all but the strongest of each class among neighbouring cells and their anchors.

    Args:
        objectness: (N, anchors, H, W), not negative.
        classes: Probabilities (N, anchors, classes, H, W); the largest says which class a candidate is of.
        neighbourhood: How many cells high and wide, odd.
    """
    kinds = classes.argmax(dim=2)
    size = objectness.shape[0], classes.shape[2], *objectness.shape[2:]
    strongest = objectness.new_zeros(size).scatter_reduce(1, kinds, objectness, "amax")
    around = F.max_pool2d(strongest, neighbourhood, stride=1, padding=neighbourhood // 2)
    return objectness * (objectness >= around.gather(1, kinds))


@loss("ObjectnessScaledLoss")
class ObjectnessScaledLoss(nn.Module):
    """Pull a YOLO student's last layer to the teacher's, above all where the teacher sees an object.

    With ``o``, ``p`` and ``b`` the objectness, the class probabilities and the box at each anchor of each cell, the
    teacher's without gradient::

        loss = loss_weight / N * sum(
            obj_weight * (o_T - o)^2 + o_T * (class_weight * |p_T - p|^2 + box_weight * |b_T - b|^2)
        )

    The last layer holds, for each anchor, ``x, y, w, h``, the objectness and the classes. ``o`` and the first two of
    ``b`` are sigmoids of it, ``w`` and ``h`` are taken as they are, ``p`` is a softmax or sigmoids.

    Before, the teacher's overlapping candidates are suppressed (FM-NMS): among those of one class in a neighbourhood of
    cells only the one with the highest objectness keeps it, the others' ``o_T`` becomes 0. Equal ones all keep it.

    Args:
        num_anchors: How many boxes a cell predicts.
        loss_weight: Factor of the result: the paper's lambda.
        obj_weight: Weight of the objectness.
        class_weight: Weight of the class probabilities.
        box_weight: Weight of the boxes.
        neighbourhood: How many cells high and wide candidates suppress each other, odd; 1 leaves it to the anchors of a
            cell, 0 suppresses nothing.
        class_activation: ``"softmax"`` as in YOLOv2, or ``"sigmoid"`` as in YOLOv3.

    Shape:
        ``preds_S`` and ``preds_T`` have one shape, (N, num_anchors * (5 + classes), H, W): values before any
        activation. No gradient reaches the teacher.

    Raises:
        SpecError: An option has a value it cannot have, the shapes differ, or the channels are not those of
            ``num_anchors`` boxes with at least one class.

    From "Object detection at 200 Frames Per Second", arXiv 1805.06361. The paper says that each term is a plain L1 or
    L2 distance; here it is the squared one.

    >>> student, teacher = torch.zeros(1, 7, 1, 1), torch.zeros(1, 7, 1, 1)
    >>> teacher[0, 2:4] = 1.0  # wider and higher; the objectness of both is a half
    >>> ObjectnessScaledLoss(num_anchors=1)(student, teacher)
    tensor(1.)
    """

    kind: ClassVar[str] = "response"

    def __init__(
        self,
        num_anchors: int,
        loss_weight: float = 1.0,
        obj_weight: float = 1.0,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        neighbourhood: int = 3,
        class_activation: str = "softmax",
    ) -> None:
        super().__init__()
        check_whole(self, num_anchors=num_anchors)
        check_numbers(self, loss_weight=loss_weight, obj_weight=obj_weight)
        check_numbers(self, class_weight=class_weight, box_weight=box_weight)
        if neighbourhood != 0:
            check_whole(self, neighbourhood=neighbourhood)
            if neighbourhood % 2 == 0:
                raise refusal(self, f"neighbourhood is {neighbourhood}; cells lie around one, so it must be odd, or 0.")
        check_choice(self, "class_activation", class_activation, ("softmax", "sigmoid"))
        self.num_anchors = num_anchors
        self.loss_weight = loss_weight
        self.obj_weight = obj_weight
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.neighbourhood = neighbourhood
        self.class_activation = class_activation

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        check_same_shape(self, preds_S=preds_S, preds_T=preds_T)
        check_maps(self, preds_S=preds_S)
        student, teacher = self._read(full(preds_S)), self._read(full(preds_T).detach())
        objectness = teacher.objectness
        if self.neighbourhood and objectness.numel():
            objectness = suppress_overlaps(objectness, teacher.classes, self.neighbourhood)
        classes = (teacher.classes - student.classes).square().sum(dim=2)
        boxes = (teacher.boxes - student.boxes).square().sum(dim=2)
        scaled = objectness * (self.class_weight * classes + self.box_weight * boxes)
        return self.loss_weight * per_sample(self.obj_weight * (objectness - student.objectness).square() + scaled)

    def _read(self, layer: Tensor) -> _Predictions:
        numbers = layer.shape[1] // self.num_anchors
        if numbers * self.num_anchors != layer.shape[1] or numbers < 6:
            problem = f"preds_S has {layer.shape[1]} channels; {self.num_anchors} anchors take {self.num_anchors} times"
            raise refusal(self, f"{problem} x, y, w, h, an objectness and at least one class.")
        by_anchor = layer.unflatten(1, (self.num_anchors, numbers))
        place, size, objectness, classes = by_anchor.split([2, 2, 1, numbers - 5], dim=2)
        boxes = torch.cat([place.sigmoid(), size], dim=2)
        probs = classes.softmax(dim=2) if self.class_activation == "softmax" else classes.sigmoid()
        return _Predictions(boxes, objectness.squeeze(2).sigmoid(), probs)
