"""Which cells of a feature map lie in an object: boxes of images to masks of maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fxkd.losses._checks import refusal


def foreground(boxes: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Return (N, height, width): in each cell one over the number of cells of the smallest box that covers it, or 0.

    A box covers the cells from the floor of its upper left to the ceiling of its lower right corner, both included.

    Args:
        boxes: Corners (x1, y1, x2, y2) in pixels, (N, M, 4); one without a width or a height counts nowhere.
        sizes: Height and width of each image in pixels, (N, 2).
        height: Of the map.
        width: Of the map.
    """
    if not boxes.shape[1]:
        return boxes.new_zeros(boxes.shape[0], height, width)
    x1, y1, x2, y2 = boxes.unbind(dim=2)
    rows, row_count = _covered(y1, y2, sizes[:, :1], height)
    columns, column_count = _covered(x1, x2, sizes[:, 1:], width)
    is_box = (x2 > x1) & (y2 > y1)
    share = torch.where(is_box, 1.0 / row_count / column_count, 0.0)
    covered = rows[:, :, :, None] & columns[:, :, None, :]
    return (covered * share[:, :, None, None]).amax(dim=1)


def _covered(start: Tensor, end: Tensor, pixels: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Return which cells of an axis each box covers, (N, M, cells), and how many, those off the map included."""
    first, last = (start / pixels * cells).floor(), (end / pixels * cells).ceil()
    cell = torch.arange(cells, device=start.device)
    return (cell >= first[:, :, None]) & (cell <= last[:, :, None]), last + 1 - first


def padded_boxes(owner: nn.Module, gt_bboxes: Any, like: Tensor) -> Tensor:
    """Return the boxes as (N, M, 4) where ``like`` is; a list of (M_n, 4) is filled up with boxes of no size."""
    samples = like.shape[0]
    boxes = gt_bboxes
    if isinstance(boxes, (list, tuple)) and boxes and all(map(_are_boxes, boxes)):
        boxes = pad_sequence(list(boxes), batch_first=True)
    if not isinstance(boxes, Tensor) or boxes.ndim != 3 or boxes.shape[0] != samples or boxes.shape[2] != 4:
        raise refusal(
            owner,
            f"gt_bboxes is {_shown(gt_bboxes)}; {samples} images take a tensor ({samples}, boxes, 4), or a list of "
            f"{samples} tensors (boxes, 4), of x1, y1, x2, y2 in pixels.",
        )
    return boxes.to(like.device, torch.promote_types(boxes.dtype, torch.float32))


def _are_boxes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == 4


def image_sizes(owner: nn.Module, img_metas: Any, like: Tensor) -> Tensor:
    """Return height and width of each image, (N, 2), where ``like`` is."""
    samples = like.shape[0]
    if isinstance(img_metas, Tensor) and tuple(img_metas.shape) == (samples, 2):
        return img_metas.to(like.device, torch.promote_types(img_metas.dtype, torch.float32))
    if isinstance(img_metas, (tuple, list)):
        if len(img_metas) == 2 and all(isinstance(size, int) for size in img_metas):
            return torch.tensor([img_metas], dtype=torch.float32, device=like.device).expand(samples, 2)
        if len(img_metas) == samples and all(_has_size(meta) for meta in img_metas):
            sizes = [list(meta["img_shape"][:2]) for meta in img_metas]
            return torch.tensor(sizes, dtype=torch.float32, device=like.device)
    raise refusal(
        owner,
        f"img_metas is {_shown(img_metas)}; {samples} images take a tensor ({samples}, 2) of heights and widths, one "
        "(height, width) for all, or a list with one dict an image that has 'img_shape'.",
    )


def _has_size(meta: Any) -> bool:
    return isinstance(meta, Mapping) and isinstance(meta.get("img_shape"), Sequence) and len(meta["img_shape"]) >= 2


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
