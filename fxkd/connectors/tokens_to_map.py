"""The tokens of a vision transformer as a feature map."""

import math

from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_prefix, check_tensor, refusal
from fxkd.registry import connector


@connector("TokensToMapConnector")
class TokensToMapConnector(nn.Module):
    """Lay the tokens of patches out as a map, row by row, and leave out those that come before them.

    Args:
        height: Rows of patches; by default what ``width`` leaves, or with neither the map is a square.
        width: Patches in a row.
        prefix_tokens: How many tokens come before those of the patches, such as 1 for a class token.

    Shape:
        (N, prefix_tokens + H * W, C) to (N, C, H, W).

    Raises:
        SpecError: An option has a value it cannot have, or the number of tokens does not give such a map.

    Patches as tokens come from "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arXiv
    2010.11929.

    >>> import torch
    >>> TokensToMapConnector(prefix_tokens=1)(torch.zeros(2, 197, 384)).shape
    torch.Size([2, 384, 14, 14])
    """

    def __init__(self, height: int | None = None, width: int | None = None, prefix_tokens: int = 0) -> None:
        super().__init__()
        for name, side in (("height", height), ("width", width)):
            if side is not None:
                check_counts(self, **{name: side})
        check_prefix(self, prefix_tokens)
        self.height = height
        self.width = width
        self.prefix_tokens = prefix_tokens

    def forward(self, feature: Tensor) -> Tensor:
        check_tensor(self, feature)
        if feature.ndim != 3:
            raise refusal(self, f"feature has shape {tuple(feature.shape)}; it takes tokens (N, L, C).")
        height, width = self._sides(feature.shape[1] - self.prefix_tokens)
        laid_out: Tensor = feature[:, self.prefix_tokens :].mT.unflatten(2, (height, width))
        return laid_out

    def _sides(self, patches: int) -> tuple[int, int]:
        """Find height and width for a number of patches."""
        height, width = self.height, self.width
        if height is None and width is None:
            height = width = round(math.sqrt(max(patches, 0)))
        elif height is None or width is None:
            known = height or width or 1
            height, width = height or patches // known, width or patches // known
        if height * width != patches or patches < 1:
            raise refusal(self, f"{patches} patches {self._no_map(height, width)}")
        return height, width

    def _no_map(self, height: int, width: int) -> str:
        before = f" (behind {self.prefix_tokens} prefix tokens)" if self.prefix_tokens else ""
        if self.height is None and self.width is None:
            return f"are no square{before}; give height and width, or another number of prefix_tokens."
        return f"are no {height} rows of {width}{before}; change height, width or prefix_tokens."

    def extra_repr(self) -> str:
        return f"height={self.height}, width={self.width}, prefix_tokens={self.prefix_tokens}"
