"""How well a detector finds what there is: average precision at an overlap of one half, its mean over the classes."""

from typing import NamedTuple

import torch
from lad_detector import overlap
from lad_images import Images
from torch import Tensor, nn

CANDIDATES, LEAST_SCORE = 50, 0.05  # boxes of an image that are looked at; the least score of one


class Found(NamedTuple):
    """What was found in one image: boxes (F, 4), their scores and classes, best first."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


@torch.no_grad()
def average_precision(model: nn.Module, images: Images, classes: int) -> float:
    """Give the mean average precision in eval mode; the mode of the model is put back."""
    was_training = model.training
    out = model.eval()(images.pixels)
    model.train(was_training)
    found = [_best(*one) for one in zip(out["scores"].sigmoid(), out["boxes"], strict=True)]
    precisions = [_of_class(found, images, kind) for kind in range(classes)]
    return sum(precisions) / classes


def _best(scores: Tensor, boxes: Tensor) -> Found:
    """Keep the best boxes of one image; of those of a class that overlap by more than a half, the better one."""
    best, places = scores.flatten().topk(CANDIDATES)
    anchors, classes = places // scores.shape[1], places % scores.shape[1]
    near = overlap(boxes[anchors][:, None].expand(-1, CANDIDATES, 4), boxes[anchors].expand(CANDIDATES, -1, 4)) > 0.5
    rivals = (near & (classes[:, None] == classes)).tolist()
    kept: list[int] = []
    for index in (best > LEAST_SCORE).nonzero()[:, 0].tolist():
        if not any(rivals[index][other] for other in kept):
            kept.append(index)
    return Found(boxes[anchors[kept]], best[kept], classes[kept])


def _of_class(found: list[Found], images: Images, kind: int) -> float:
    hits = sorted(hit for image, one in enumerate(found) for hit in _hits(one, images, image, kind))[::-1]
    total = int((images.labels == kind).sum())
    right = torch.tensor([is_right for _, is_right in hits], dtype=torch.float64).cumsum(0)
    precision = right / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    steps = torch.diff(right, prepend=torch.zeros(1, dtype=torch.float64))
    return float((best * steps).sum()) / max(total, 1)


def _hits(found: Found, images: Images, image: int, kind: int) -> list[tuple[float, bool]]:
    """Say of each box of a class whether it is right: each thing can be found once."""
    free = (images.labels[image] == kind).nonzero()[:, 0].tolist()
    mine = (found.classes == kind).nonzero()[:, 0]
    boxes, things = found.boxes[mine][:, None], images.boxes[image, free]
    shared = overlap(boxes.expand(-1, len(free), 4), things.expand(len(mine), -1, 4)).tolist()
    hits = []
    for score, overlaps in zip(found.scores[mine].tolist(), shared, strict=True):
        best = max(range(len(free)), key=overlaps.__getitem__, default=None)
        is_right = best is not None and overlaps[best] >= 0.5
        if best is not None and is_right:
            for row in shared:
                row[best] = 0.0  # it is found
        hits.append((score, is_right))
    return hits
