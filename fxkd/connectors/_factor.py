"""The stacks of 3x3 convolutions that factor transfer is made of."""

import itertools

from torch import nn


def encoder(in_channel: int, out_channel: int, use_bn: bool) -> nn.Sequential:
    """Build the three layers that make a factor of a feature; the second changes the channels."""
    return _stack(nn.Conv2d, (in_channel, in_channel, out_channel, out_channel), use_bn)


def decoder(out_channel: int, in_channel: int, use_bn: bool) -> nn.Sequential:
    """Build the three layers that make a feature of a factor."""
    return _stack(nn.ConvTranspose2d, (out_channel, out_channel, in_channel, in_channel), use_bn)


def _stack(conv: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: tuple[int, ...], use_bn: bool) -> nn.Sequential:
    """Chain convolution, normalisation (or an empty place, so that the names stay) and activation."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        norm = nn.BatchNorm2d(after) if use_bn else nn.Identity()
        layers += [conv(before, after, kernel_size=3, stride=1, padding=1), norm, nn.LeakyReLU(0.1, inplace=True)]
    return nn.Sequential(*layers)
