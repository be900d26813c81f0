"""Detectors as mmdet puts them together: backbone, FPN, a head that gives its losses level by level."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.standins.resnet import ResNet, widths

Losses = dict[str, Any]
Samples = dict[str, Tensor]


class ConvModule(nn.Module):
    """A convolution under its own name, as mmcv has it."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class FPN(nn.Module):
    """Give five levels of 256 channels.

    Args:
        in_channels: Of the stages of the backbone.
        start_level: The first stage that is used; 1 leaves out the largest maps.
        extra: Where the levels beyond the stages come from: ``"pool"`` of the last level, ``"input"`` of the last stage
            or ``"output"`` of the last level, by convolutions.
    """

    def __init__(self, in_channels: Sequence[int], start_level: int, extra: str) -> None:
        super().__init__()
        self.start_level, self.extra = start_level, extra
        used = in_channels[start_level:]
        self.lateral_convs = nn.ModuleList(ConvModule(channels, 256, 1) for channels in used)
        self.fpn_convs = nn.ModuleList(ConvModule(256, 256, 3) for _ in used)
        for index in range(5 - len(used)) if extra != "pool" else ():
            before = used[-1] if extra == "input" and index == 0 else 256
            self.fpn_convs.append(ConvModule(before, 256, 3, 2))

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        used = inputs[self.start_level :]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[2:]
            laterals[index - 1] = laterals[index - 1] + F.interpolate(laterals[index], size=size, mode="nearest")
        outs = [self.fpn_convs[index](lateral) for index, lateral in enumerate(laterals)]
        if self.extra == "pool":
            return (*outs, F.max_pool2d(outs[-1], 1, stride=2))
        source = used[-1] if self.extra == "input" else outs[-1]
        for conv in list(self.fpn_convs)[len(laterals) :]:
            source = conv(source if source is used[-1] else F.relu(source))
            outs.append(source)
        return tuple(outs)


class DenseHead(nn.Module):
    """Classify and measure on every level; the losses are lists, one entry a level.

    Args:
        kinds: Names of the losses beside ``loss_cls``, each with its own last convolution.
    """

    def __init__(self, kinds: Sequence[str] = ("loss_bbox",), classes: int = 80) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvModule(256, 32, 1), nn.ReLU(inplace=True))
        self.cls = nn.Conv2d(32, classes, 3, padding=1)
        self.others = nn.ModuleDict({kind: nn.Conv2d(32, 4, 3, padding=1) for kind in kinds})

    def loss(self, levels: tuple[Tensor, ...], data_samples: Samples) -> Losses:
        losses: Losses = {"loss_cls": []} | {kind: [] for kind in self.others}
        for level in levels:
            feature = self.convs(level)
            score = self.cls(feature).mean((2, 3))
            losses["loss_cls"].append(F.cross_entropy(score, data_samples["gt_labels"]))
            for kind, conv in self.others.items():
                boxes = conv(feature).mean((2, 3))
                losses[kind].append(F.smooth_l1_loss(boxes, data_samples["gt_bboxes"]))
        return losses


class TwoStageHead(nn.Module):
    """The heads of an R-CNN: proposals on every level, one box from the largest, and an accuracy among the losses."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.rpn = DenseHead(("loss_rpn_bbox",), classes=2)
        self.shared_fc, self.fc_cls, self.fc_reg = nn.Linear(256, 64), nn.Linear(64, classes), nn.Linear(64, 4)

    def loss(self, levels: tuple[Tensor, ...], data_samples: Samples) -> Losses:
        labels = data_samples["gt_labels"]
        losses = self.rpn.loss(levels, {**data_samples, "gt_labels": labels % 2})
        losses["loss_rpn_cls"] = losses.pop("loss_cls")
        roi = self.shared_fc(levels[0].mean((2, 3))).relu()
        score, boxes = self.fc_cls(roi), self.fc_reg(roi)
        losses["loss_cls"] = F.cross_entropy(score, labels)
        losses["acc"] = (score.argmax(dim=1) == labels).float().mean()
        losses["loss_bbox"] = F.smooth_l1_loss(boxes, data_samples["gt_bboxes"])
        return losses


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module, neck: nn.Module, bbox_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head = backbone, neck, bbox_head

    def forward(self, inputs: Tensor, data_samples: Samples | None = None) -> Any:
        levels = self.neck(self.backbone(inputs))
        return levels if data_samples is None else self.bbox_head.loss(levels, data_samples)


def backbone(depth: int, groups: int = 1) -> ResNet:
    """Make a ResNet with all the stages and widths of its depth, and one block a stage."""
    return ResNet(depth, blocks=(1, 1, 1, 1), out_indices=(0, 1, 2, 3), groups=groups)


def one_stage(depth: int, groups: int = 1, extra: str = "input", kinds: Sequence[str] = ("loss_bbox",)) -> Detector:
    """Make a RetinaNet or one of its kin: levels of stride 8 to 128."""
    return Detector(backbone(depth, groups), FPN(widths(depth), 1, extra), DenseHead(kinds))


def two_stage(depth: int) -> Detector:
    """Make a Faster R-CNN: levels of stride 4 to 64."""
    return Detector(backbone(depth), FPN(widths(depth), 0, "pool"), TwoStageHead())


def boxed(count: int, side: int, seed: int = 0) -> tuple[Tensor, Samples]:
    """Make images (count, 3, side, side), each with one labelled box."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=generator)
    labels = torch.randint(80, (count,), generator=generator)
    return images, {"gt_labels": labels, "gt_bboxes": torch.rand(count, 4, generator=generator)}
