"""Synthetic images of squares, discs and crosses on noise, with their boxes, padded to one number for each image."""

from typing import NamedTuple

import torch
from torch import Tensor

SIZE, MOST, CLASSES = 48, 3, 3  # side of an image, most things in one, kinds of things


class Images(NamedTuple):
    """A batch: images (N, 3, S, S), boxes (N, M, 4) as corners, labels (N, M); -1 is no thing."""

    pixels: Tensor
    boxes: Tensor
    labels: Tensor


def make(count: int, seed: int) -> Images:
    """Draw ``count`` images; the same for the same seed."""
    draw = torch.Generator().manual_seed(seed)
    pixels = 0.35 * torch.randn(count, 3, SIZE, SIZE, generator=draw)
    boxes, labels = torch.zeros(count, MOST, 4), torch.full((count, MOST), -1)
    for image in range(count):
        for thing in range(int(torch.randint(1, MOST + 1, (), generator=draw))):
            kind, side, x, y = _place(draw)
            color = 0.35 + 0.45 * torch.rand(3, 1, 1, generator=draw)
            pixels[image, :, y : y + side, x : x + side] += color * _shape(kind, side)
            boxes[image, thing] = torch.tensor([x, y, x + side, y + side])
            labels[image, thing] = kind
    return Images(pixels, boxes, labels)


def _place(draw: torch.Generator) -> tuple[int, int, int, int]:
    kind, side = (int(torch.randint(low, high, (), generator=draw)) for low, high in ((0, CLASSES), (9, 25)))
    x, y = (int(torch.randint(0, SIZE - side + 1, (), generator=draw)) for _ in "xy")
    return kind, side, x, y


def _shape(kind: int, side: int) -> Tensor:
    """Give a mask: a square, a disc, a cross."""
    line = torch.linspace(-1, 1, side)
    x, y = line[None], line[:, None]
    masks = (x.abs().maximum(y.abs()) <= 1, x.square() + y.square() <= 1, x.abs().minimum(y.abs()) <= 0.3)
    return masks[kind].float()
