"""A Swin transformer of one block a stage: attention in windows, stochastic depth, patches merged between stages."""

import torch
from torch import Tensor, nn

from tests.support.standins.deit import Attention


class DropPath(nn.Module):
    """Leave out the branch of some samples in train mode."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.drop_prob
        return x * kept / (1 - self.drop_prob)


class SwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.in_windows(self.norm1(x)))
        return x + self.drop(self.ffn(self.norm2(x)))  # type: ignore[no-any-return]

    def in_windows(self, x: Tensor) -> Tensor:
        count, height, width, channels = x.shape
        side = self.window
        rows, columns = height // side, width // side
        windows = x.view(count, rows, side, columns, side, channels).permute(0, 1, 3, 2, 4, 5)
        out = self.attn(windows.reshape(-1, side * side, channels))
        out = out.view(count, rows, columns, side, side, channels).permute(0, 1, 3, 2, 4, 5)
        return out.reshape(count, height, width, channels)  # type: ignore[no-any-return]


class PatchMerging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))  # type: ignore[no-any-return]


class SwinTransformer(nn.Module):
    """The widths of Swin-S, 96 to 768, as maps of stride 4 to 32."""

    widths = (96, 192, 384, 768)

    def __init__(self, window: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 96, 4, 4)
        self.stages = nn.ModuleList(SwinBlock(width, width // 32, window) for width in self.widths)
        self.merging = nn.ModuleList(PatchMerging(width) for width in self.widths[:-1])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        outs = []
        for index, stage in enumerate(self.stages):
            x = stage(self.merging[index - 1](x) if index else x)
            outs.append(x.permute(0, 3, 1, 2))
        return tuple(outs)
