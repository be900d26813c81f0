"""A small vision transformer: class token, position embedding added in place, attention with arithmetic on shapes."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(queries: Tensor, keys: Tensor, *, values: Tensor) -> Tensor:
    """Attend with all heads: three tensors (B, heads, N, d) to one (B, N, heads * d)."""
    mixed = functional.scaled_dot_product_attention(queries, keys, values)
    return mixed.transpose(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


class Masker:
    """Drops tokens at random."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def keep(self, tokens: Tensor) -> Tensor:
        """Draw which tokens stay: (B, N, C) to ones and zeros (B, N, 1)."""
        chance = torch.rand(tokens.shape[0], tokens.shape[1], 1, device=tokens.device)
        return (chance >= self.rate).to(tokens.dtype)

    def hide(self, tokens: Tensor) -> Tensor:
        """Set the dropped tokens to zero."""
        return tokens * self.keep(tokens)


class Block(nn.Module):
    """Attention and a perceptron, each with its own shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(attend(queries, keys, values=values))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Images (N, 3, 16, 16) to logits (N, classes); a masker works before each block."""

    def __init__(self, width: int = 16, depth: int = 2, heads: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, stride=8)
        self.cls_token = nn.Parameter(0.5 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.5 * torch.randn(1, 5, width))
        self.masker = Masker(0.3)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x += self.pos_embed
        for block in self.blocks:
            x = block(self.masker.hide(x))
        return self.head(self.norm(x)[:, 0])
