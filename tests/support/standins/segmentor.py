"""PSPNet as mmseg puts it together: a dilated backbone, a decode head with pyramid pooling, and an auxiliary head."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.standins.resnet import ResNet, widths

Losses = dict[str, Any]
Samples = dict[str, Tensor]
CLASSES = 19


def conv_module(before: int, after: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Head(nn.Module):
    """Dropout, then one convolution to the classes; the loss compares its enlarged output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, CLASSES, 1)

    def cls_seg(self, feature: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(feature))  # type: ignore[no-any-return]

    def losses(self, logits: Tensor, data_samples: Samples) -> Losses:
        labels = data_samples["gt_sem_seg"]
        logits = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss_ce": F.cross_entropy(logits, labels, ignore_index=255), "acc_seg": accuracy}


class PSPHead(Head):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(channels)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_module(in_channels, channels, 1)) for scale in (1, 2, 3, 6)
        )
        self.bottleneck = conv_module(in_channels + 4 * channels, channels, 3)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        x = inputs[3]
        pooled = [F.interpolate(pool(x), size=x.shape[2:], mode="bilinear") for pool in self.psp_modules]
        return self.cls_seg(self.bottleneck(torch.cat((x, *pooled), dim=1)))


class FCNHead(Head):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(channels)
        self.convs = conv_module(in_channels, channels, 3)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self.cls_seg(self.convs(inputs[2]))


class EncoderDecoder(nn.Module):
    """Blocks are one a stage, widths those of ``depth``; the decode head has ``channels``."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        every = (0, 1, 2, 3)
        self.backbone = ResNet(depth, "imagenet", (1, 1, 1, 1), every, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
        self.decode_head = PSPHead(widths(depth)[3], channels)
        self.auxiliary_head = FCNHead(widths(depth)[2], channels // 2)

    def forward(self, inputs: Tensor, data_samples: Samples | None = None) -> Any:
        features = self.backbone(inputs)
        logits = self.decode_head(features)
        if data_samples is None:
            return logits
        losses = {f"decode.{name}": loss for name, loss in self.decode_head.losses(logits, data_samples).items()}
        helped = self.auxiliary_head.losses(self.auxiliary_head(features), data_samples)
        return losses | {f"aux.{name}": 0.4 * loss if "loss" in name else loss for name, loss in helped.items()}


def mapped(count: int, side: int, seed: int = 0) -> tuple[Tensor, Samples]:
    """Make images (count, 3, side, side) and a class for every pixel."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=generator)
    return images, {"gt_sem_seg": torch.randint(CLASSES, (count, side, side), generator=generator)}
