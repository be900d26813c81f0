"""Masked generative distillation: the student's feature, partly hidden, and a small generator that completes it."""

import torch
from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_flags, check_init_cfg, check_map, check_number, refusal
from fxkd.registry import connector


@connector("MGDConnector")
class MGDConnector(nn.Module):
    """Hide a random part of the student's feature and generate the teacher's from the rest.

    ::

        output = conv3x3(relu(conv3x3(mask * align(feature))))
        mask = 0 where u > 1 - lambda_mgd, else 1,  u uniform in [0, 1)

    ``align`` is a 1x1 convolution where the channels differ, else nothing. What is left is not scaled up. The mask is
    drawn anew at every call, in eval mode too, from the generator of the feature's device.

    Args:
        student_channels: Channels of the feature.
        teacher_channels: Channels of the output.
        lambda_mgd: Share of what is hidden, from 0 to 1.
        mask_on_channel: Whether whole channels are hidden, or (the default) positions in all channels.
        init_cfg: Only None; weights can be changed after building.

    The parameters lie under ``align``, ``generation.0`` and ``generation.2``.

    Shape:
        (N, student_channels, H, W) to (N, teacher_channels, H, W). ``forward`` takes a ``mask`` besides, for those who
        draw it themselves: (N, 1, H, W), or (N, teacher_channels, 1, 1).

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Masked Generative Distillation", arXiv 2205.01529.

    >>> MGDConnector(64, 256)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 256, 8, 8])
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        lambda_mgd: float = 0.65,
        mask_on_channel: bool = False,
        init_cfg: None = None,
    ) -> None:
        super().__init__()
        check_counts(self, student_channels=student_channels, teacher_channels=teacher_channels)
        check_number(self, "lambda_mgd", lambda_mgd)
        if not 0 <= lambda_mgd <= 1:
            raise refusal(self, f"lambda_mgd is {lambda_mgd!r}; a share is from 0 to 1.")
        check_flags(self, mask_on_channel=mask_on_channel)
        check_init_cfg(self, init_cfg)
        self.student_channels = student_channels
        self.lambda_mgd = lambda_mgd
        self.mask_on_channel = mask_on_channel
        same = student_channels == teacher_channels
        self.align = None if same else nn.Conv2d(student_channels, teacher_channels, 1)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward(self, feature: Tensor, mask: Tensor | None = None) -> Tensor:
        check_map(self, feature, "student_channels", self.student_channels)
        aligned = feature if self.align is None else self.align(feature)
        if mask is None:
            mask = self.draw_mask(aligned)
        output: Tensor = self.generation(aligned * mask.to(aligned.dtype))
        return output

    def draw_mask(self, feature: Tensor) -> Tensor:
        """Draw what is seen (True) of an aligned feature and what is hidden."""
        samples, channels, height, width = feature.shape
        shape = (samples, channels, 1, 1) if self.mask_on_channel else (samples, 1, height, width)
        return torch.rand(shape, dtype=torch.float32, device=feature.device) <= 1 - self.lambda_mgd
