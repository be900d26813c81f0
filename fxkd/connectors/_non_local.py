"""The non-local block: every position of a map sees every other."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._layers import Config, build_conv, build_norm
from fxkd.errors import SpecError

MODES = ("dot_product", "embedded_gaussian", "gaussian", "concatenation")


class NonLocalBlock(nn.Module):
    """Add to each position of a map a mixture of all positions.

    ::

        output = x + conv_out(y),  y_i = sum_j A_ij g_j

    with ``g``, ``theta``, ``phi`` 1x1 convolutions of x to ``max(in_channels // reduction, 1)`` channels, and ``A`` by
    mode::

        dot_product        theta_i . phi_j / P,  P the number of positions j
        embedded_gaussian  softmax over j of theta_i . phi_j / sqrt(channels of theta)
        gaussian           softmax over j of x_i . x_j
        concatenation      relu(w . [theta_i, phi_j]) / P

    Args:
        place: The owner's name, for messages.
        in_channels: Channels of x.
        reduction: What they are divided by inside.
        use_scale: Whether ``embedded_gaussian`` divides by the root.
        conv_cfg: Which convolution.
        norm_cfg: The normalisation in ``conv_out``, or None.
        mode: How positions are compared.
        pool: Side of the max pooling of the positions j; 1 is none.
        zeros_init: Whether the block starts as the identity.

    From "Non-local Neural Networks", arXiv 1711.07971.
    """

    def __init__(
        self,
        place: str,
        in_channels: int,
        *,
        reduction: int,
        use_scale: bool,
        conv_cfg: Config | None,
        norm_cfg: Config | None,
        mode: str,
        pool: int,
        zeros_init: bool,
    ) -> None:
        super().__init__()
        self.place = place
        self.mode = mode
        self.pool = pool
        inner = max(in_channels // reduction, 1)
        self.scale = inner**-0.5 if use_scale else 1.0
        self.g = _pointwise(place, conv_cfg, in_channels, inner)
        self.theta = self.phi = self.concat_project = None
        if mode != "gaussian":
            self.theta = _pointwise(place, conv_cfg, in_channels, inner)
            self.phi = _pointwise(place, conv_cfg, in_channels, inner)
        if mode == "concatenation":
            self.concat_project = _named(conv=nn.Conv2d(2 * inner, 1, 1, bias=False))
        self.conv_out = _output(place, conv_cfg, norm_cfg, inner, in_channels, zeros_init)

    def forward(self, x: Tensor) -> Tensor:
        g = self._pooled(self.g(x)).flatten(2)  # (N, inner, P)
        mixed = g @ self._weights(x).mT  # (N, inner, H W)
        output: Tensor = x + self.conv_out(mixed.unflatten(2, x.shape[2:]))
        return output

    def _weights(self, x: Tensor) -> Tensor:
        """Compare every position (rows) with every pooled one (columns): (N, H W, P)."""
        query = x if self.theta is None else self.theta(x)
        key = self._pooled(x if self.phi is None else self.phi(x)).flatten(2)
        query = query.flatten(2)
        if self.concat_project is not None:
            (weight,) = self.concat_project.parameters()
            return _compared(query, key, weight) / key.shape[2]
        products = query.mT @ key
        if self.mode == "dot_product":
            return products / key.shape[2]
        return F.softmax(products * (self.scale if self.mode == "embedded_gaussian" else 1.0), dim=2)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == 1:
            return x
        if min(x.shape[2:]) < self.pool:
            size = "x".join(map(str, x.shape[2:]))
            raise SpecError([f"{self.place}: the feature is {size} and is pooled by {self.pool}; take a smaller pool."])
        return F.max_pool2d(x, self.pool)


def _compared(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """Project every pair of positions: the sum of the projections of each."""
    of_query, of_key = weight.reshape(2, 1, -1)
    return F.relu((of_query @ query).mT + of_key @ key)


def _pointwise(place: str, conv_cfg: Config | None, before: int, after: int) -> nn.Sequential:
    conv = build_conv(f"{place}: conv_cfg", conv_cfg, in_channels=before, out_channels=after, kernel_size=1)
    _fill(conv, 0.01)
    return _named(conv=conv)


def _output(
    place: str, conv_cfg: Config | None, norm_cfg: Config | None, before: int, after: int, zeros_init: bool
) -> nn.Sequential:
    """Build the last convolution and its normalisation; what comes last of them is zero at the start."""
    options = {"in_channels": before, "out_channels": after, "kernel_size": 1, "bias": norm_cfg is None}
    conv = build_conv(f"{place}: conv_cfg", conv_cfg, **options)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    layers, last = {"conv": conv}, conv
    if norm_cfg is not None:
        name, last = build_norm(f"{place}: norm_cfg", norm_cfg, after)
        layers[name] = last
    _fill(last, 0.0 if zeros_init else 0.01)
    return _named(**layers)


@torch.no_grad()
def _fill(layer: nn.Module, deviation: float) -> None:
    """Draw the weight around zero and set the bias to zero, where there are any."""
    for name, parameter in layer.named_parameters(recurse=False):
        parameter.normal_(std=deviation) if name == "weight" else parameter.zero_()


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
