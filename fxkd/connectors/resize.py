"""Change the height and width of a feature map."""

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import check_choice, check_counts, check_flags, check_map, check_number, refusal
from fxkd.registry import connector

_METHODS = {"interpolate": ("bilinear", "bicubic", "nearest", "nearest-exact", "area"), "pool": ("avg", "max")}
_ALIGNED = ("bilinear", "bicubic")


@connector("ResizeConnector")
class ResizeConnector(nn.Module):
    """Interpolate or pool a feature map to a given height and width.

    ::

        output = interpolate(feature, size)         # mode "interpolate"
        output = adaptive_avg_pool2d(feature, size)  # mode "pool"

    Args:
        size: Height and width of the output, or one number for both.
        scale: What height and width are multiplied by, then rounded down; one number or two. Give this or ``size``.
        mode: ``"interpolate"`` or ``"pool"``.
        method: ``"bilinear"`` (the default), ``"bicubic"``, ``"nearest"``, ``"nearest-exact"`` or ``"area"``; to pool
            ``"avg"`` (the default) or ``"max"``.
        align_corners: As in ``torch.nn.functional.interpolate``, for ``"bilinear"`` and ``"bicubic"``.

    Shape:
        (N, C, H, W) to (N, C, H', W').

    Raises:
        SpecError: An option has a value it cannot have, or the feature is no map.

    Maps of other sizes are so compared in "Improving Fast Segmentation With Teacher-student Learning", arXiv
    1810.08476.

    >>> import torch
    >>> ResizeConnector([7, 7], mode="pool")(torch.zeros(2, 64, 14, 14)).shape
    torch.Size([2, 64, 7, 7])
    >>> ResizeConnector(scale=2)(torch.zeros(2, 64, 14, 14)).shape
    torch.Size([2, 64, 28, 28])
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
        mode: str = "interpolate",
        method: str | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if (size is None) is (scale is None):
            raise refusal(self, f"size is {size!r} and scale is {scale!r}; give one of the two.")
        check_choice(self, "mode", mode, _METHODS)
        method = method or _METHODS[mode][0]
        check_choice(self, "method", method, _METHODS[mode])
        check_flags(self, align_corners=align_corners)
        if align_corners and method not in _ALIGNED:
            raise refusal(self, f"align_corners is for {' and '.join(_ALIGNED)}, and method is {method!r}.")
        self.size = None if size is None else self._pair("size", size)
        self.scale = None if scale is None else self._pair("scale", scale)
        self.method = method
        self.align_corners = align_corners
        self._check_sizes()

    def _pair(self, name: str, given: Any) -> tuple[Any, Any]:
        pair = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given, given)
        if len(pair) != 2:
            raise refusal(self, f"{name} is {given!r}; give one number, or two: for height and width.")
        return pair

    def _check_sizes(self) -> None:
        for part in self.size or ():
            check_counts(self, size=part)
        for part in self.scale or ():
            check_number(self, "scale", part)
            if not part > 0:
                raise refusal(self, f"scale is {part!r}; it must be above 0.")

    def forward(self, feature: Tensor) -> Tensor:
        check_map(self, feature)
        size = self.size or self._scaled(*feature.shape[2:])
        if self.method == "avg":
            return F.adaptive_avg_pool2d(feature, size)
        if self.method == "max":
            return F.adaptive_max_pool2d(feature, size)
        corners = self.align_corners if self.method in _ALIGNED else None
        return F.interpolate(feature, size, mode=self.method, align_corners=corners)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        by_height, by_width = self.scale or (1, 1)
        size = math.floor(height * by_height), math.floor(width * by_width)
        if min(size) < 1:
            raise refusal(self, f"nothing is left of a map of {height}x{width} at a scale of {self.scale}.")
        return size

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.size else f"scale={self.scale}"
        return f"{size}, method={self.method!r}"
