"""Feature-based distillation for detectors: attention masks of a map, and the map as a non-local block sees it."""

import warnings
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import (
    check_choice,
    check_counts,
    check_flags,
    check_init_cfg,
    check_map,
    check_temperatures,
)
from fxkd.connectors._layers import Config
from fxkd.connectors._non_local import MODES, NonLocalBlock
from fxkd.errors import SpecWarning
from fxkd.registry import connector

_CONV: Config = MappingProxyType({"type": "Conv2d"})
_NORM: Config = MappingProxyType({"type": "BN"})


class _FBKDConnector(nn.Module):
    """What both sides share: the options, the masks, and the making of the non-local block."""

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        conv_cfg: Config | None = _CONV,
        norm_cfg: Config | None = _NORM,
        mode: str = "dot_product",
        sub_sample: bool = False,
        maxpool_stride: int = 2,
        zeros_init: bool = True,
        spatial_T: float = 0.5,
        channel_T: float = 0.5,
        init_cfg: None = None,
        use_scale: bool = True,
        compat: bool = True,
    ) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, reduction=reduction, maxpool_stride=maxpool_stride)
        check_choice(self, "mode", mode, MODES)
        check_flags(self, sub_sample=sub_sample, zeros_init=zeros_init, use_scale=use_scale, compat=compat)
        check_temperatures(self, spatial_T=spatial_T, channel_T=channel_T)
        check_init_cfg(self, init_cfg)
        self.in_channels = in_channels
        self.spatial_T = spatial_T
        self.channel_T = channel_T
        self._add_layers(
            NonLocalBlock(
                type(self).__name__,
                in_channels,
                reduction=reduction,
                use_scale=use_scale,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                mode=mode,
                pool=self._pool(maxpool_stride, compat) if sub_sample else 1,
                zeros_init=zeros_init,
            )
        )

    def _add_layers(self, non_local: NonLocalBlock) -> None:
        raise NotImplementedError

    def _pool(self, stride: int, compat: bool) -> int:
        """Give the side of the pooling, and say so where it is not what the option says."""
        if not compat:
            return stride
        warnings.warn(
            f"{type(self).__name__}: sub_sample pools by {2 * stride}, twice the maxpool_stride of {stride}, as "
            f"MMRazor does; 'compat: false' pools by {stride}",
            SpecWarning,
            stacklevel=3,
        )
        return 2 * stride

    def _masks(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Give the share of each position (N, 1, H, W) and of each channel (N, C, 1, 1); both are 1 in the mean."""
        check_map(self, feature, "in_channels", self.in_channels)
        positions = feature.abs().mean(1).flatten(1)
        spatial = positions.shape[1] * F.softmax(positions / self.spatial_T, dim=1)
        channels = self.in_channels * F.softmax(feature.abs().mean((2, 3)) / self.channel_T, dim=1)
        return spatial.unflatten(1, feature.shape[2:]).unsqueeze(1), channels[:, :, None, None]


@connector("FBKDStudentConnector")
class FBKDStudentConnector(_FBKDConnector):
    """Give what ``FBKDLoss`` compares of the student's map x.

    ::

        spatial_mask = H * W * softmax over positions of (mean over channels of |x|) / spatial_T
        channel_mask = C * softmax over channels of (mean over positions of |x|) / channel_T
        output = (spatial_mask, channel_mask,
                  linear(mean over positions of x), conv3x3(mean over channels of x),
                  conv1x1(non_local(x)), conv1x1(x))

    The non-local block ("Non-local Neural Networks", arXiv 1711.07971) adds to each position a mixture of all:
    ``x_i + norm(conv1x1(sum_j A_ij g_j))``.

    Args:
        in_channels: Channels of the feature, C; they must be the teacher's too, else put a ConvModuleConnector before.
        reduction: What the channels are divided by inside the non-local block.
        conv_cfg: Its convolutions.
        norm_cfg: Its normalisation, or None.
        mode: How it compares positions: ``"dot_product"``, ``"embedded_gaussian"``, ``"gaussian"`` or
            ``"concatenation"``.
        sub_sample: Whether each position sees a max-pooled map only, which costs less.
        maxpool_stride: The side of that pooling; see ``compat``.
        zeros_init: Whether the block starts as the identity.
        spatial_T: Temperature of the mask of positions.
        channel_T: Temperature of the mask of channels.
        init_cfg: Only None; weights can be changed after building.
        use_scale: Whether ``"embedded_gaussian"`` divides by the square root of its channels.
        compat: Whether sub_sample pools by 2 and by maxpool_stride, as MMRazor does, and warns of it; False pools by
            maxpool_stride.

    The parameters lie under ``student_non_local``, ``channel_wise_adaptation``, ``spatial_wise_adaptation``,
    ``non_local_adaptation`` and ``adaptation_layers``.

    Shape:
        (N, C, H, W) to (N, 1, H, W), (N, C, 1, 1), (N, C), (N, 1, H, W), (N, C, H, W) and (N, C, H, W).

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and Efficient Detectors",
    ICLR 2021, https://openreview.net/forum?id=uKhGRvM8QNH.

    >>> import torch
    >>> [tuple(value.shape) for value in FBKDStudentConnector(16)(torch.zeros(2, 16, 8, 8))]
    [(2, 1, 8, 8), (2, 16, 1, 1), (2, 16), (2, 1, 8, 8), (2, 16, 8, 8), (2, 16, 8, 8)]
    """

    def _add_layers(self, non_local: NonLocalBlock) -> None:
        channels = self.in_channels
        self.student_non_local = non_local
        self.channel_wise_adaptation = nn.Linear(channels, channels)
        self.spatial_wise_adaptation = nn.Conv2d(1, 1, 3, padding=1)
        self.non_local_adaptation = nn.Conv2d(channels, channels, 1)
        self.adaptation_layers = nn.Conv2d(channels, channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        return (
            *self._masks(feature),
            self.channel_wise_adaptation(feature.mean((2, 3))),
            self.spatial_wise_adaptation(feature.mean(1, keepdim=True)),
            self.non_local_adaptation(self.student_non_local(feature)),
            self.adaptation_layers(feature),
        )


@connector("FBKDTeacherConnector")
class FBKDTeacherConnector(_FBKDConnector):
    """Give what ``FBKDLoss`` compares of the teacher's map x.

    ::

        output = (spatial_mask, channel_mask, mean over channels of x, non_local(x), x)

    with masks and non-local block as in ``FBKDStudentConnector``, which has the same options. The block is trained: the
    gradient of the loss reaches it.

    The parameters lie under ``teacher_non_local``.

    Shape:
        (N, C, H, W) to (N, 1, H, W), (N, C, 1, 1), (N, 1, H, W), (N, C, H, W) and (N, C, H, W).

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and Efficient Detectors",
    ICLR 2021, https://openreview.net/forum?id=uKhGRvM8QNH.

    >>> import torch
    >>> [tuple(value.shape) for value in FBKDTeacherConnector(16)(torch.zeros(2, 16, 8, 8))]
    [(2, 1, 8, 8), (2, 16, 1, 1), (2, 1, 8, 8), (2, 16, 8, 8), (2, 16, 8, 8)]
    """

    def _add_layers(self, non_local: NonLocalBlock) -> None:
        self.teacher_non_local = non_local

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        masks = self._masks(feature)
        return *masks, feature.mean(1, keepdim=True), self.teacher_non_local(feature), feature
