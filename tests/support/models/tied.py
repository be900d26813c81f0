"""A language model whose embedding and output head share one parameter; its inputs are integers."""

import torch
from torch import Tensor, nn


def order(tokens: Tensor) -> Tensor:
    """Give (B, L, C) tokens their place: add a sine of the position to each."""
    places = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
    return tokens + torch.sin(places).unsqueeze(-1)


class Corrupter:
    """Spoils sentences at random."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def replace(self, ids: Tensor) -> Tensor:
        """Set some ids, drawn at random, to zero."""
        return ids.masked_fill(torch.rand(ids.shape, device=ids.device) < self.rate, 0)

    def dim(self, tokens: Tensor) -> Tensor:
        """Scale each sentence of (B, L, C) by its own random factor."""
        return tokens * (1 - self.rate * torch.rand(tokens.shape[0], 1, 1, device=tokens.device))


class Tied(nn.Module):
    """Ids (B, L) below ``words`` to logits (B, L, words)."""

    def __init__(self, width: int = 8, depth: int = 1, words: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight
        self.corrupter = Corrupter(0.3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.corrupter.dim(self.embedding(self.corrupter.replace(ids)))
        x = order(x)
        return self.head(self.norm(order(x + self.layers(x))))
