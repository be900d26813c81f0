"""A slow ``nms`` for torchvision where its own operators are not there (see ``tests/support/torchvision_shim.py``)."""

from functools import cache

import torch
from torch import Tensor


@cache
def install() -> torch.library.Library | None:
    """Give torchvision what its detectors need on a CPU, unless it has it; what is given must be kept."""
    import torchvision
    from torchvision.ops import boxes

    if torchvision.extension._has_ops():
        return None
    library = torch.library.Library("torchvision", "IMPL")
    library.impl("nms", nms, "CPU")
    boxes._assert_has_ops = lambda: None
    return library


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Give the indices (K,) of the boxes (N, 4) that no better one overlaps by more than ``threshold``, best first."""
    left = scores.argsort(descending=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while left.numel():
        best, left = left[0], left[1:]
        kept.append(best)
        corners = torch.maximum(boxes[best, :2], boxes[left, :2]), torch.minimum(boxes[best, 2:], boxes[left, 2:])
        common = (corners[1] - corners[0]).clamp(min=0).prod(1)
        left = left[common / (area[best] + area[left] - common) <= threshold]
    return torch.stack(kept) if kept else left
