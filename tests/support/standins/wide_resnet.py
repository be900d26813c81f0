"""Wide ResNets for small images: normalisation and activation come before each convolution."""

from torch import Tensor, nn


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.downsample = None
        if before != after or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        identity = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(identity))))
        out += self.downsample(identity) if self.downsample is not None else x
        return out  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """WRN-``depth``-``widen``: (depth - 4) / 6 blocks a stage, 16, 32 and 64 channels times ``widen``."""

    def __init__(self, depth: int, widen: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        before = 16
        for stage in range(3):
            after, layer = 16 * 2**stage * widen, nn.Sequential()
            for index in range((depth - 4) // 6):
                layer.append(BasicBlock(before, after, 2 if stage and not index else 1))
                before = after
            self.add_module(f"layer{stage + 1}", layer)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return (self.relu(self.bn1(x)),)
