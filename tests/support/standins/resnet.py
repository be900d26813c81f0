"""ResNets as mmcls builds them: one ReLU a block, in place, called after every normalisation and after the sum."""

from collections.abc import Sequence

from torch import Tensor, nn

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, before: int, width: int, stride: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, before: int, width: int, stride: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        inner = width if groups == 1 else width * groups * 4 // 64  # a ResNeXt of 4 channels a group, at width 64
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample(before, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


def downsample(before: int, after: int, stride: int) -> nn.Sequential | None:
    if before == after and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """Give the outputs of some stages as a tuple.

    Args:
        depth: 18, 34, 50 or 101; the widths go by it.
        stem: ``"imagenet"`` divides height and width by 4, ``"cifar"`` by 1.
        blocks: Blocks of each stage; by default those of the depth.
        out_indices: Stages that are given.
        strides: Of the stages.
        dilations: Of the stages.
        groups: Of the middle convolutions of bottlenecks.
    """

    def __init__(
        self,
        depth: int,
        stem: str = "imagenet",
        blocks: Sequence[int] | None = None,
        out_indices: Sequence[int] = (3,),
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.out_indices = tuple(out_indices)
        is_cifar = stem == "cifar"
        self.conv1 = nn.Conv2d(3, 64, 3 if is_cifar else 7, 1 if is_cifar else 2, 1 if is_cifar else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if is_cifar else nn.MaxPool2d(3, 2, 1)
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        before = 64
        for stage, count in enumerate(blocks or DEPTHS[depth]):
            width, layer = 64 * 2**stage, nn.Sequential()
            for index in range(count):
                layer.append(block(before, width, 1 if index else strides[stage], dilations[stage], groups))
                before = width * block.expansion
            self.add_module(f"layer{stage + 1}", layer)
        self.stages = len(blocks or DEPTHS[depth])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outputs = []
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            if stage in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def widths(depth: int) -> list[int]:
    """Give the channels of each stage's output."""
    return [64 * 2**stage * (1 if depth < 50 else 4) for stage in range(4)]
