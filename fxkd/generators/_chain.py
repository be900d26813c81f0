"""What the generators have in common: noise to a small map, which is enlarged and convolved twice."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.errors import SpecError


class Chain(nn.Module):
    """A linear layer, a norm, and two rounds of enlargement, convolution, norm and LeakyReLU, without the end.

    Args:
        img_size: Height and width of the images.
        latent_dim: Width of the noise.
        hidden_channels: Channels of the first convolution; the second has half as many.
        scale_factor: By how much each round enlarges.
        bn_eps: ``eps`` of the norms of the two rounds.
        leaky_slope: Slope of the LeakyReLU below zero.
        end: What follows the second round's LeakyReLU.
    """

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        hidden_channels: int,
        scale_factor: int,
        bn_eps: float,
        leaky_slope: float,
        end: tuple[nn.Module, ...],
    ) -> None:
        super().__init__()
        self.latent_dim, self.scale_factor = latent_dim, scale_factor
        self.hidden_channels, self.init_size = hidden_channels, img_size // scale_factor**2
        self.linear = nn.Linear(latent_dim, hidden_channels * self.init_size**2)
        self.bn1 = nn.BatchNorm2d(hidden_channels)
        self.conv_blocks1 = nn.Sequential(*_round(hidden_channels, hidden_channels, bn_eps, leaky_slope))
        self.conv_blocks2 = nn.Sequential(*_round(hidden_channels, hidden_channels // 2, bn_eps, leaky_slope), *end)

    def forward(self, data: Tensor | None = None, batch_size: int = 1) -> Tensor:
        noise = self._noise(data, batch_size)
        value = self.linear(noise).reshape(noise.shape[0], self.hidden_channels, self.init_size, self.init_size)
        value = F.interpolate(self.bn1(value), scale_factor=self.scale_factor)
        value = F.interpolate(self.conv_blocks1(value), scale_factor=self.scale_factor)
        images: Tensor = self.conv_blocks2(value)
        return images

    def _noise(self, data: Tensor | None, batch_size: int) -> Tensor:
        """Check the noise that is given, or draw some."""
        if data is None:
            check_counts(self, batch_size=batch_size)
            like = self.linear.weight
            return torch.randn(batch_size, self.latent_dim, device=like.device, dtype=like.dtype)
        if not isinstance(data, Tensor):
            raise refusal(self, f"data is a {type(data).__name__}, not a tensor; leave it out to draw noise.")
        if data.ndim != 2 or data.shape[1] != self.latent_dim:
            problem = f"data has shape {tuple(data.shape)}; it takes noise (N, latent_dim), with latent_dim"
            raise refusal(self, f"{problem} {self.latent_dim}.")
        return data


def _round(before: int, after: int, eps: float, slope: float) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(before, after, 3, padding=1)
    return convolution, nn.BatchNorm2d(after, eps=eps), nn.LeakyReLU(slope, inplace=True)


def refusal(owner: nn.Module, problem: str) -> SpecError:
    """Make the error that names the generator and its ``problem``."""
    return SpecError([f"{type(owner).__name__}: {problem}"])


def check_counts(owner: nn.Module, **options: object) -> None:
    """Refuse options that are not whole numbers above zero."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise refusal(owner, f"{name} is {value!r}; it must be a whole number above 0.")


def check_sizes(owner: nn.Module, img_size: int, latent_dim: int, hidden_channels: int, scale_factor: int) -> None:
    """Refuse sizes of which no chain can be made."""
    check_counts(owner, img_size=img_size, latent_dim=latent_dim)
    check_counts(owner, hidden_channels=hidden_channels, scale_factor=scale_factor)
    if hidden_channels < 2:
        raise refusal(owner, "hidden_channels is 1; the last layers have half as many, so give 2 or more.")
    if img_size % scale_factor**2:
        problem = f"img_size is {img_size}, which scale_factor {scale_factor} squared ({scale_factor**2}) does not"
        raise refusal(owner, f"{problem} divide: the images would be smaller than asked.")


def check_numbers(owner: nn.Module, **options: object) -> None:
    """Refuse options that are not finite numbers of 0 or more."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            hint = " YAML reads 1e-5 as text: write 1.0e-5." if isinstance(value, str) else ""
            raise refusal(owner, f"{name} is {value!r}; it must be a number of 0 or more.{hint}")
