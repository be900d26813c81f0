"""The generator of zero-shot knowledge transfer: noise to images, scaled by weights of their own."""

from torch import nn

from fxkd.generators._chain import Chain, check_numbers, check_sizes
from fxkd.registry import generator


@generator("ZSKTGenerator")
class ZSKTGenerator(Chain):
    """Make images of noise; mean and scale of their channels are learned.

    ::

        map = bn(linear(noise))                              (N, hidden_channels, s, s), s = img_size / scale_factor^2
        map = leaky_relu(bn(conv(enlarged(map))))            (N, hidden_channels, ...)
        map = leaky_relu(bn(conv(enlarged(map))))            (N, hidden_channels // 2, img_size, img_size)
        images = bn(conv(map))

    All convolutions are 3x3 and keep the size; ``enlarged`` repeats each value scale_factor times in both directions.

    Args:
        img_size: Height and width of the images; scale_factor squared divides it.
        latent_dim: Width of the noise.
        hidden_channels: Channels of the first convolution, 2 or more.
        scale_factor: By how much each of the two rounds enlarges.
        leaky_slope: Slope of the LeakyReLU below zero.

    The parameters lie under ``linear``, ``bn1``, ``conv_blocks1`` and ``conv_blocks2``.

    Shape:
        ``data`` (N, latent_dim) to (N, 3, img_size, img_size); without data, ``batch_size`` rows of normal noise are
        drawn where the weights are.

    Raises:
        SpecError: An option has a value it cannot have, the noise does not fit, or batch_size is not above 0.

    From "Zero-shot Knowledge Transfer via Adversarial Belief Matching", arXiv 1905.09768.

    >>> ZSKTGenerator(img_size=32, latent_dim=10, hidden_channels=8)(batch_size=2).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        hidden_channels: int,
        scale_factor: int = 2,
        leaky_slope: float = 0.2,
    ) -> None:
        check_sizes(self, img_size, latent_dim, hidden_channels, scale_factor)
        check_numbers(self, leaky_slope=leaky_slope)
        to_image = nn.Conv2d(hidden_channels // 2, 3, 3, padding=1)
        end = (to_image, nn.BatchNorm2d(3))
        super().__init__(img_size, latent_dim, hidden_channels, scale_factor, 1e-5, leaky_slope, end)
