"""The overhaul of feature distillation, the teacher's side: what is far below zero teaches nothing."""

import math

import torch
from torch import Tensor, nn

from fxkd.connectors._checks import check_init_cfg, check_map, refusal
from fxkd.registry import connector


def overhaul_margin(batch_norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> Tensor:
    """Give the expected value of each channel of a batch normalisation where it is negative, (1, C, 1, 1).

    With scale ``s = |weight|``, shift ``b = bias`` and ``cdf`` that of the normal distribution::

        margin = b - s * exp(-(b / s)^2 / 2) / (sqrt(2 pi) * cdf(-b / s))   where cdf(-b / s) > 0.001
        margin = -3 s                                                       elsewhere

    A channel of scale 0 is constant: its margin is that constant if it is negative, else 0.

    >>> norm = nn.BatchNorm2d(2)
    >>> norm.bias.data = torch.tensor([0.0, 5.0])
    >>> overhaul_margin(norm).flatten()
    tensor([-0.7979, -3.0000])
    """
    weight, bias = _affine(batch_norm)
    scale = weight.abs().clamp(min=torch.finfo(weight.dtype).tiny)
    ratio = bias / scale
    below = torch.special.ndtr(-ratio)
    mean = bias - scale * torch.exp(-ratio.square() / 2) / (math.sqrt(2 * math.pi) * below)
    return torch.where(below > 0.001, mean, -3 * scale).reshape(1, -1, 1, 1)


def _affine(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> tuple[Tensor, Tensor]:
    """Give weight and bias, in float32 at least; 1 and 0 where there are none."""
    if not norm.affine:
        device = None if norm.running_mean is None else norm.running_mean.device
        return torch.ones(norm.num_features, device=device), torch.zeros(norm.num_features, device=device)
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    return norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)


@connector("OFDTeacherConnector")
class OFDTeacherConnector(nn.Module):
    """Raise the teacher's feature, from before its activation, to a margin below zero for each channel.

    ::

        output = max(feature, margin)

    The margin is the mean of what is negative, by the batch normalisation that gives the feature: see
    ``overhaul_margin``. It is a buffer that moves with the module and is not in its state dict.

    Args:
        init_cfg: Only None; there are no weights.

    Shape:
        (N, C, H, W) to the same, without gradient.

    Raises:
        SpecError: The margin is not set, the feature does not fit it, or ``init_cfg`` is not None.

    From "A Comprehensive Overhaul of Feature Distillation", arXiv 1904.01866.

    >>> connector = OFDTeacherConnector()
    >>> connector.adapt(nn.BatchNorm2d(2))
    >>> connector(torch.tensor([-2.0, 2.0]).reshape(1, 2, 1, 1)).flatten()
    tensor([-0.7979,  2.0000])
    """

    margin: Tensor | None

    def __init__(self, init_cfg: None = None) -> None:
        super().__init__()
        check_init_cfg(self, init_cfg)
        self.register_buffer("margin", None, persistent=False)

    def adapt(self, module: nn.Module) -> None:
        """Set the margin by the teacher's batch normalisation whose output is recorded.

        Raises:
            SpecError: It is no ``BatchNorm2d`` and no ``SyncBatchNorm``.
        """
        if not isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            raise refusal(
                self,
                f"its margin comes from a BatchNorm2d or a SyncBatchNorm, not from a {type(module).__name__}; record "
                "the output of the teacher's normalisation, from before the activation, or call init_margin.",
            )
        self.margin = overhaul_margin(module)

    def init_margin(self, margin: Tensor) -> None:
        """Set the margin, (1, C, 1, 1) or any shape that fits the feature when it is broadcast."""
        if not isinstance(margin, Tensor):
            raise refusal(self, f"margin is a {type(margin).__name__}, not a tensor.")
        self.margin = margin.detach()

    def forward(self, feature: Tensor) -> Tensor:
        check_map(self, feature)
        if self.margin is None:
            how = "call adapt with the teacher's batch normalisation, or init_margin with a tensor (1, C, 1, 1)."
            raise refusal(self, f"the margin is not set; {how}")
        if self.margin.ndim == 4 and self.margin.shape[1] not in (1, feature.shape[1]):
            problem = f"feature has shape {tuple(feature.shape)}; the margin is for {self.margin.shape[1]} channels"
            raise refusal(self, f"{problem}: was it made of the normalisation that gives the feature?")
        return torch.maximum(feature.detach(), self.margin.to(feature.dtype))
