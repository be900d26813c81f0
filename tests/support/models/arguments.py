"""A model with keyword-only and optional arguments; its mask is a boolean tensor."""

import torch
from torch import Tensor, nn


def masked_mean(tokens: Tensor, mask: Tensor | None = None, *, floor: float = 1.0) -> Tensor:
    """Average (B, L, C) over the tokens that ``mask`` (B, L) keeps; over all without a mask."""
    if mask is None:
        return tokens.mean(1)
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=floor)


class Gate:
    """Opens tokens at random."""

    def draw(self, tokens: Tensor, *, low: float) -> Tensor:
        """Draw one number between ``low`` and 1 for each token of (B, L, C): (B, L, 1)."""
        return low + (1 - low) * torch.rand(tokens.shape[0], tokens.shape[1], 1, device=tokens.device)

    def apply(self, tokens: Tensor, *, low: float = 0.2) -> Tensor:
        """Scale each token by its own number."""
        return tokens * self.draw(tokens, low=low)


class Layer(nn.Module):
    """A linear layer with a keyword-only argument of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return x + scale * torch.tanh(self.fc(x))


class Arguments(nn.Module):
    """Tokens (B, L, 7) and a mask (B, L) to logits (B, classes)."""

    def __init__(self, width: int = 8, depth: int = 1, classes: int = 5) -> None:
        super().__init__()
        self.project = nn.Linear(7, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.gate = Gate()
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        x = self.gate.apply(self.project(x))
        for layer in self.layers:
            x = layer(x, scale=scale)
        return self.fc(masked_mean(x, mask=mask) + masked_mean(x, floor=2.0))
