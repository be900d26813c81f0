"""A tiny detector of one stage: a square anchor at each cell of two maps, and an assigner that goes by its scores."""

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES, SCALE, CANDIDATES = (4, 8), 2.5, 9


class Assigner:
    """Chooses the anchors that learn a thing, by what the detector itself gives for them (as PAA and ATSS do).

    For each thing: of the anchors whose centre lies inside it the ``CANDIDATES`` of least cost, and of these all that
    cost no more than their mean. How many that are depends on the values.
    """

    @torch.no_grad()
    def assign(
        self, scores: Tensor, boxes: Tensor, centres: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the chosen (anchor, thing, image), each a list of as many indices as were chosen in the batch."""
        chosen = []
        for image in range(len(labels)):
            for thing in (labels[image] >= 0).nonzero()[:, 0].tolist():
                target = targets[image, thing]
                inside = _inside(centres, target).nonzero()[:, 0]
                cost = _cost(scores[image, inside, labels[image, thing]], boxes[image, inside], target)
                cost, best = cost.topk(min(CANDIDATES, len(cost)), largest=False)
                anchors = inside[best[cost <= cost.mean()]]
                chosen += [(int(anchor), thing, image) for anchor in anchors]
        anchors, things, images = torch.tensor(sorted(chosen), device=labels.device).reshape(-1, 3).unbind(1)
        return anchors, things, images


def _inside(centres: Tensor, box: Tensor) -> Tensor:
    return ((centres > box[:2]) & (centres < box[2:])).all(1)


def _cost(scores: Tensor, boxes: Tensor, target: Tensor) -> Tensor:
    return functional.softplus(-scores) + 2 * (1 - overlap(boxes, target.expand_as(boxes)))


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Give the intersection over union of boxes and as many others, (..., 4) as corners."""
    sides = (boxes[..., 2:].minimum(others[..., 2:]) - boxes[..., :2].maximum(others[..., :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (_area(boxes) + _area(others) - shared).clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


class Detector(nn.Module):
    """Gives scores (N, A, C) and boxes (N, A, 4); with targets the losses too."""

    def __init__(self, width: int, classes: int, size: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, width, 2), _block(width, width, 2))
        self.deeper = _block(width, 2 * width, 2)
        self.heads = nn.ModuleList(nn.Conv2d(wide, classes + 4, 3, padding=1) for wide in (width, 2 * width))
        self.classes, self.assigner = classes, Assigner()
        for head in self.heads:
            nn.init.constant_(head.bias[:classes], -3.0)  # at first nothing is anywhere
        centres, sides = zip(*(_anchors(size, stride) for stride in STRIDES), strict=True)
        self.register_buffer("centres", torch.cat(centres))
        self.register_buffer("sides", torch.cat(sides))

    def forward(self, pixels: Tensor, boxes: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Detect; ``boxes`` (N, M, 4) and ``labels`` (N, M) are what there is."""
        first = self.stem(pixels)
        maps = [head(level).flatten(2) for head, level in zip(self.heads, (first, self.deeper(first)), strict=True)]
        scores, moves = torch.cat(maps, 2).transpose(1, 2).split((self.classes, 4), dim=2)
        places = self._boxes(moves)
        found = {"scores": scores, "boxes": places}
        return found if boxes is None else found | self._losses(scores, places, boxes, labels)

    def _boxes(self, moves: Tensor) -> Tensor:
        centres = self.centres + self.sides * moves[..., :2].tanh()
        half = 0.5 * self.sides * moves[..., 2:].clamp(-3, 3).exp()
        return torch.cat((centres - half, centres + half), 2)

    def _losses(self, scores: Tensor, places: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        anchors, things, images = self.assigner.assign(scores, places, self.centres, boxes, labels)
        wanted = torch.zeros_like(scores)
        wanted[images, anchors, labels[images, things]] = 1
        count = wanted.sum().clamp(min=1)
        errors = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        focus = (wanted - scores.sigmoid()).square()
        overlaps = overlap(places[images, anchors], boxes[images, things])
        sides = 0.1 * functional.smooth_l1_loss(places[images, anchors], boxes[images, things], reduction="none")
        return {
            "loss_class": (focus * errors).sum() / count,
            "loss_box": ((1 - overlaps).sum() + sides.mean(1).sum()) / count,
        }


def _block(before: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _anchors(size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Give centres (A, 2) and sides (A, 1) of one map."""
    steps = (torch.arange(size // stride) + 0.5) * stride
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1), torch.full((steps.numel() ** 2, 1), SCALE * stride)
