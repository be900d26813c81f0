"""Normalise a feature."""

from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_init_cfg
from fxkd.connectors._layers import Config, build_norm
from fxkd.registry import connector


@connector("NormConnector")
class NormConnector(nn.Module):
    """Pass a feature through a normalisation.

    ::

        output = norm(feature)

    Args:
        in_channels: Channels of the feature.
        norm_cfg: ``{"type": name, **arguments}``: BN, BN1d, BN2d, BN3d, SyncBN, IN, IN1d, IN2d, IN3d, GN (needs
            ``num_groups``) or LN (over the channels). ``requires_grad: False`` freezes it.
        init_cfg: Only None; weights can be changed after building.

    The parameters lie under ``norm``.

    Shape:
        (N, in_channels, H, W) to the same; other numbers of axes with another ``norm_cfg``.

    Raises:
        SpecError: The layer is unknown or gets a wrong argument, or an option has a value it cannot have.

    Features are so normalised in "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient", arXiv 2207.02039.

    >>> import torch
    >>> connector = NormConnector(4, {"type": "BN", "affine": False, "track_running_stats": False})
    >>> connector(torch.randn(8, 4, 5, 5)).mean((0, 2, 3)).abs().max() < 1e-5
    tensor(True)
    """

    def __init__(self, in_channels: int, norm_cfg: Config, init_cfg: None = None) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels)
        check_init_cfg(self, init_cfg)
        _, self.norm = build_norm("NormConnector: norm_cfg", norm_cfg, in_channels)

    def forward(self, feature: Tensor) -> Tensor:
        output: Tensor = self.norm(feature)
        return output
