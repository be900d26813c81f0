"""Generators of images from noise, of the two data-free methods that have their own."""

from torch import Tensor, nn


class DAFLGenerator(nn.Module):
    """Noise (N, latent_dim) to images (N, 3, img_size, img_size)."""

    def __init__(self, img_size: int, latent_dim: int, hidden_channels: int, bn_eps: float = 0.8) -> None:
        super().__init__()
        self.hidden, self.side = hidden_channels, img_size // 4
        self.linear = nn.Linear(latent_dim, hidden_channels * self.side**2)
        self.body = body(hidden_channels, bn_eps)
        self.tail = nn.Sequential(nn.Tanh(), nn.BatchNorm2d(3, affine=False))

    def forward(self, noise: Tensor) -> Tensor:
        image = self.linear(noise).reshape(-1, self.hidden, self.side, self.side)
        return self.tail(self.body(image))  # type: ignore[no-any-return]


class ZSKTGenerator(DAFLGenerator):
    """The same without a bound on what it gives, and with a normalisation that learns."""

    def __init__(self, img_size: int, latent_dim: int, hidden_channels: int) -> None:
        super().__init__(img_size, latent_dim, hidden_channels, bn_eps=1e-5)
        self.tail = nn.Sequential(nn.BatchNorm2d(3))


def body(hidden: int, eps: float) -> nn.Sequential:
    """Enlarge by four, in two steps."""
    return nn.Sequential(
        nn.BatchNorm2d(hidden),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        nn.BatchNorm2d(hidden, eps),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(hidden, hidden // 2, 3, padding=1),
        nn.BatchNorm2d(hidden // 2, eps),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(hidden // 2, 3, 3, padding=1),
    )
