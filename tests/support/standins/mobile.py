"""MobileNetV2, ShuffleNetV2 1x and a small RegNetY with the width of one of 16 GF at its end."""

import torch
from torch import Tensor, nn


def conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """Make convolution, normalisation and, if asked for, an activation in place."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False))
    layers.add_module("bn", nn.BatchNorm2d(after))
    if act:
        layers.add_module("activate", nn.ReLU6(inplace=True))
    return layers


class InvertedResidual(nn.Module):
    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = before * expand
        layers = [conv(before, inner, 1)] if expand > 1 else []
        self.conv = nn.Sequential(*layers, conv(inner, inner, 3, stride, inner), conv(inner, after, 1, act=False))
        self.is_residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.is_residual else out


class MobileNetV2(nn.Module):
    settings = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 32, 3, 2)
        before, self.names = 32, []
        for number, (after, count, stride) in enumerate(self.settings, 1):
            layer = nn.Sequential()
            for index in range(count):
                layer.append(InvertedResidual(before, after, 1 if index else stride, 6 if number > 1 else 1))
                before = after
            self.names.append(f"layer{number}")
            self.add_module(f"layer{number}", layer)
        self.conv2 = conv(before, 1280, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return (self.conv2(x),)


class ShuffleUnit(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        half = after // 2
        entering = before if stride > 1 else half
        self.branch1 = None
        if stride > 1:
            self.branch1 = nn.Sequential(conv(before, before, 3, stride, before, act=False), conv(before, half, 1))
        self.branch2 = nn.Sequential(
            conv(entering, half, 1), conv(half, half, 3, stride, half, act=False), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            kept, x = x.chunk(2, dim=1)
        else:
            kept = self.branch1(x)
        out = torch.cat((kept, self.branch2(x)), dim=1)
        count, channels, height, width = out.size()
        return out.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(out.shape)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 24, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers, before = nn.ModuleList(), 24
        for after, count in ((116, 4), (232, 8), (464, 4)):
            units = [ShuffleUnit(after if index else before, after, 1 if index else 2) for index in range(count)]
            self.layers.append(nn.Sequential(*units))
            before = after
        self.layers.append(conv(before, 1024, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.conv1(x))
        for layer in self.layers:
            x = layer(x)
        return (x,)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()  # type: ignore[no-any-return]


class RegNetY(nn.Module):
    """One block a stage, with squeeze and excitation; the last stage is narrow inside, its output is not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32, 3, 2)
        self.stages, before = nn.Sequential(), 32
        for after in (64, 112, 224):
            self.stages.append(nn.Sequential(conv(before, after, 3, 2, 16), SqueezeExcite(after)))
            before = after
        self.final = conv(before, 3024, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.final(self.stages(self.stem(x))),)
