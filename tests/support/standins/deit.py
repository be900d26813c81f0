"""A vision transformer with a distillation token, and a head whose second layer runs only to be recorded."""

import torch
from torch import Tensor, nn

from tests.support.standins.classifier import LabelLoss, Losses, Samples


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).reshape(count, tokens, width))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.ffn = nn.Module()
        self.ffn.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.ffn.layers(self.ln2(x))  # type: ignore[no-any-return]


class DistilledVisionTransformer(nn.Module):
    """The width of DeiT-B, with two layers for its twelve; gives the class token and the distillation token."""

    def __init__(self, size: int = 64, width: int = 768, layers: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.projection = nn.Conv2d(3, width, 16, 16)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.dist_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, (size // 16) ** 2 + 2, width))
        self.layers = nn.ModuleList(EncoderLayer(width, heads=12) for _ in range(layers))
        self.ln1 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed.projection(x).flatten(2).transpose(1, 2)
        tokens = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.dist_token)]
        x = torch.cat((*tokens, x), dim=1) + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        x = self.ln1(x)
        return x[:, 0], x[:, 1]


class DeiTClsHead(nn.Module):
    def __init__(self, in_channels: int = 768, num_classes: int = 1000) -> None:
        super().__init__()
        self.layers = nn.Module()
        self.layers.head = nn.Linear(in_channels, num_classes)
        self.layers.head_dist = nn.Linear(in_channels, num_classes)
        self.loss_module = LabelLoss(label_smoothing=0.1, loss_weight=0.5)

    def forward(self, tokens: tuple[Tensor, ...]) -> Tensor:
        cls_token, dist_token = tokens
        self.layers.head_dist(dist_token)
        return self.layers.head(cls_token)  # type: ignore[no-any-return]

    def loss(self, tokens: tuple[Tensor, ...], data_samples: Samples) -> Losses:
        return {"loss": self.loss_module(self(tokens), data_samples["gt_label"])}
