"""A feature map as the tokens of a vision transformer."""

import torch
from torch import Tensor, nn

from fxkd.connectors._checks import check_map, check_prefix
from fxkd.registry import connector


@connector("MapToTokensConnector")
class MapToTokensConnector(nn.Module):
    """Read a map row by row as tokens, with zeros in the place of tokens that come before those of the patches.

    Args:
        prefix_tokens: How many tokens of zeros come first, such as 1 in the place of a class token. What they are
            compared with gives no gradient to the feature; to leave it out, drop the partner's own prefix with a
            ``TokensToMapConnector``.

    Shape:
        (N, C, H, W) to (N, prefix_tokens + H * W, C).

    Raises:
        SpecError: The option has a value it cannot have, or the feature is no map.

    Patches as tokens come from "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arXiv
    2010.11929.

    >>> MapToTokensConnector(prefix_tokens=1)(torch.zeros(2, 384, 14, 14)).shape
    torch.Size([2, 197, 384])
    """

    def __init__(self, prefix_tokens: int = 0) -> None:
        super().__init__()
        check_prefix(self, prefix_tokens)
        self.prefix_tokens = prefix_tokens

    def forward(self, feature: Tensor) -> Tensor:
        check_map(self, feature)
        tokens = feature.flatten(2).mT
        if not self.prefix_tokens:
            return tokens
        prefix = tokens.new_zeros(tokens.shape[0], self.prefix_tokens, tokens.shape[2])
        return torch.cat([prefix, tokens], dim=1)

    def extra_repr(self) -> str:
        return f"prefix_tokens={self.prefix_tokens}"
