"""Be your own teacher: a shallow classifier on a middle feature, with attention."""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import check_choice, check_counts, check_init_cfg, check_map, refusal
from fxkd.registry import connector


class _SepConv(nn.Sequential):
    """Two rounds of ReLU, depthwise convolution, pointwise convolution and normalisation; the first has the stride."""

    def __init__(self, before: int, after: int, kernel_size: int, stride: int) -> None:
        around: dict[str, Any] = {"padding": kernel_size // 2, "groups": before, "bias": False}
        super().__init__(
            nn.ReLU(),  # not in place: it is the model's own feature that comes in
            nn.Conv2d(before, before, kernel_size, stride, **around),
            nn.Conv2d(before, before, 1, bias=False),
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Conv2d(before, after, kernel_size, **around),
            nn.Conv2d(after, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )


@connector("BYOTConnector")
class BYOTConnector(nn.Module):
    """Make a vector and class logits of a feature of a middle stage, so that the last stage can teach it.

    With ``SepConv`` two rounds of ReLU, depthwise and pointwise convolution and batch normalisation::

        attention = sigmoid(resized(relu(bn(SepConv(feature)))))
        vector = flat(avg_pool(SepConv(... SepConv(attention * feature))))
        logits = linear(vector)

    Each SepConv of the second line doubles the channels, until they are out_channel * expansion, and divides height and
    width by stride. The attention is resized to the feature's size, bilinearly.

    Args:
        in_channel: Channels of the feature, divided by expansion.
        out_channel: Channels of the last stage, divided by expansion; in_channel times a power of two.
        num_classes: Number of logits.
        expansion: What a block of the model multiplies its channels by: 4 in a ResNet-50, 1 in a ResNet-18.
        pool_size: Height and width that are averaged at the end: what is left of the feature's after the SepConvs.
        kernel_size: Of the depthwise convolutions, 3 or 5.
        stride: Of the SepConvs, 1 or 2. The paper's is 2.
        init_cfg: Only None; weights can be changed after building.

    The parameters lie under ``attention``, ``scala`` and ``fc``.

    Shape:
        (N, in_channel * expansion, H, W) to a pair: (N, out_channel * expansion) and (N, num_classes). Choose with
        ``connector_idx``.

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation", arXiv
    1905.08094.

    >>> import torch
    >>> connector = BYOTConnector(64, 512, num_classes=100, expansion=1, stride=2)
    >>> vector, logits = connector(torch.zeros(2, 64, 32, 32))
    >>> vector.shape, logits.shape
    (torch.Size([2, 512]), torch.Size([2, 100]))
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        num_classes: int,
        expansion: int = 4,
        pool_size: int = 4,
        kernel_size: int = 3,
        stride: int = 1,
        init_cfg: None = None,
    ) -> None:
        super().__init__()
        check_counts(self, in_channel=in_channel, out_channel=out_channel, num_classes=num_classes)
        check_counts(self, expansion=expansion, pool_size=pool_size)
        check_choice(self, "kernel_size", kernel_size, (3, 5))
        check_choice(self, "stride", stride, (1, 2))
        check_init_cfg(self, init_cfg)
        widths = [in_channel * expansion]
        while widths[-1] < out_channel * expansion:
            widths.append(2 * widths[-1])
        if widths[-1] != out_channel * expansion:
            problem = f"out_channel is {out_channel}; it must be in_channel, {in_channel}, times a power of two."
            raise refusal(self, problem)
        self.channels = widths[0]
        self.pool_size = pool_size
        self.attention = nn.Sequential(
            _SepConv(widths[0], widths[0], kernel_size, stride), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        steps = itertools.pairwise(widths)
        convs = [_SepConv(before, after, kernel_size, stride) for before, after in steps]
        self.scala = nn.Sequential(*convs, nn.AvgPool2d(pool_size))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        check_map(self, feature, "in_channel * expansion", self.channels)
        attention = F.interpolate(self.attention(feature), feature.shape[2:], mode="bilinear").sigmoid()
        pooled = self._pooled(attention * feature)
        vector = pooled.flatten(1)
        return vector, self.fc(vector)

    def _pooled(self, feature: Tensor) -> Tensor:
        """Run the chain; what it leaves must be one position."""
        *convs, pool = self.scala
        for conv in convs:
            feature = conv(feature)
        height, width, side = *feature.shape[2:], self.pool_size
        if not (height // side == 1 == width // side):
            left = f"{height}x{width} is left of the feature for a pool_size of {side}, which must leave 1x1 of it"
            raise refusal(self, f"{left}; change pool_size or stride.")
        pooled: Tensor = pool(feature)
        return pooled
