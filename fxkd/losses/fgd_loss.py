"""Distance of two feature maps where the objects are, where they are not, and of their global context."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.losses._checks import check_maps, check_numbers, check_temperature, check_whole, refusal
from fxkd.losses._foreground import foreground, image_sizes, padded_boxes
from fxkd.losses._values import full, nothing, per_sample
from fxkd.registry import loss


def _context_block(channels: int) -> nn.Sequential:
    """Build what turns a context (N, C, 1, 1) into what is added to each position; nothing, at the start."""
    block = nn.Sequential(
        nn.Conv2d(channels, channels // 2, 1),
        nn.LayerNorm([channels // 2, 1, 1]),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 1),
    )
    nn.init.zeros_(block[3].weight)  # type: ignore[arg-type]
    nn.init.zeros_(block[3].bias)  # type: ignore[arg-type]
    return block


def _context_mask(channels: int) -> nn.Conv2d:
    """Build what says how much each position counts in the context."""
    mask = nn.Conv2d(channels, 1, 1)
    nn.init.kaiming_normal_(mask.weight, mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(mask.bias)  # type: ignore[arg-type]
    return mask


def _apply(module: nn.Module, feature: Tensor) -> Tensor:
    """Run layers in their own precision."""
    return full(module(feature.to(next(module.parameters()).dtype)))


@loss("FGDLoss")
class FGDLoss(nn.Module):
    """Pull a detector's features to the teacher's: apart for objects and background, and in their context.

    With ``S`` and ``C`` the attention over positions and over channels: ``H W softmax(mean over channels of |x| /
    temp)`` and ``C softmax(mean over positions of |x| / temp)``; ``M`` in each cell of an object one over the number
    of cells of the smallest box there; ``B`` one over the number of all other cells; sums over everything::

        focal   = sum((alpha_fgd * M + beta_fgd * B) * S_t * C_t * (s - t)^2)
        attention = sum(|S_s - S_t|) + sum(|C_s - C_t|)
        context = sum((R_s(s) - R_t(t))^2)
        loss = (focal + gamma_fgd * attention + lambda_fgd * context) / N

    ``R(x) = x + W2(relu(layer_norm(W1(sum over positions of x softmax(Wk(x))))))`` is a global context block; each side
    has its own, which is trained with the student. Where the channels differ, a 1 x 1 convolution first brings the
    student's to the teacher's. The layers are called as in the authors' code, so their states load.

    Args:
        student_channels: Channels of the student's feature.
        teacher_channels: Channels of the teacher's, at least 2.
        temp: The temperature of both attentions, above 0.
        alpha_fgd: Weight of the cells in objects.
        beta_fgd: Weight of the others.
        gamma_fgd: Weight of the attentions' distance.
        lambda_fgd: Weight of the contexts' distance.

    Shape:
        ``preds_S`` (N, student_channels, H, W), ``preds_T`` (N, teacher_channels, H, W). ``gt_bboxes``: corners x1, y1,
        x2, y2 in pixels, as a list of N tensors (boxes, 4), or one tensor (N, boxes, 4) filled up with zeros: a box
        without a width or a height counts nowhere. ``img_metas``: heights and widths in pixels as a tensor (N, 2), one
        (height, width) for all, or a list of N dicts with ``img_shape``. Gradient reaches both features.

    Raises:
        SpecError: An option has a value it cannot have, a feature has other channels than were said, N or the space
            differ, or boxes and sizes are not one set an image.

    From "Focal and Global Knowledge Distillation for Detectors", arXiv 2111.11837.

    >>> loss = FGDLoss(student_channels=2, teacher_channels=4)
    >>> student, teacher = torch.ones(1, 2, 8, 8), torch.ones(1, 4, 8, 8)
    >>> loss(student, teacher, torch.tensor([[[0.0, 0.0, 16.0, 32.0]]]), (64, 64)).shape
    torch.Size([])
    """

    kind: ClassVar[str] = "feature"

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        temp: float = 0.5,
        alpha_fgd: float = 0.001,
        beta_fgd: float = 0.0005,
        gamma_fgd: float = 0.001,
        lambda_fgd: float = 0.000005,
    ) -> None:
        super().__init__()
        check_whole(self, student_channels=student_channels, teacher_channels=teacher_channels)
        check_temperature(self, temp, name="temp")
        check_numbers(self, alpha_fgd=alpha_fgd, beta_fgd=beta_fgd, gamma_fgd=gamma_fgd, lambda_fgd=lambda_fgd)
        if teacher_channels < 2:
            raise refusal(self, "teacher_channels is 1; the context block halves the channels, so give 2 or more.")
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.temp = temp
        self.alpha_fgd = alpha_fgd
        self.beta_fgd = beta_fgd
        self.gamma_fgd = gamma_fgd
        self.lambda_fgd = lambda_fgd
        differ = student_channels != teacher_channels
        self.align = nn.Conv2d(student_channels, teacher_channels, 1) if differ else None
        self.conv_mask_s = _context_mask(teacher_channels)
        self.conv_mask_t = _context_mask(teacher_channels)
        self.channel_add_conv_s = _context_block(teacher_channels)
        self.channel_add_conv_t = _context_block(teacher_channels)

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_bboxes: Any, img_metas: Any) -> Tensor:
        self._check_features(preds_S, preds_T)
        student, teacher = full(preds_S), full(preds_T)
        if not student.numel():
            return nothing(student, teacher)
        weights = self._weights(teacher, gt_bboxes, img_metas)
        if self.align is not None:
            student = _apply(self.align, student)
        positions_s, channels_s = self._attention(student)
        positions_t, channels_t = self._attention(teacher)
        focal = per_sample(weights * positions_t * channels_t * (student - teacher).square())
        attention = per_sample((positions_s - positions_t).abs()) + per_sample((channels_s - channels_t).abs())
        related_s = self._related(student, self.conv_mask_s, self.channel_add_conv_s)
        related_t = self._related(teacher, self.conv_mask_t, self.channel_add_conv_t)
        context = per_sample((related_s - related_t).square())
        return focal + self.gamma_fgd * attention + self.lambda_fgd * context

    def _weights(self, feature: Tensor, gt_bboxes: Any, img_metas: Any) -> Tensor:
        """Return what each cell counts, (N, 1, H, W)."""
        boxes, sizes = padded_boxes(self, gt_bboxes, feature), image_sizes(self, img_metas, feature)
        objects = foreground(boxes, sizes, *feature.shape[2:]).to(feature.dtype)
        background = (objects == 0).to(feature.dtype)
        background = background / background.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        return (self.alpha_fgd * objects + self.beta_fgd * background)[:, None]

    def _attention(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention over positions (N, 1, H, W) and over channels (N, C, 1, 1), both of mean 1."""
        size = feature.abs()
        by_position, by_channel = size.mean(dim=1, keepdim=True), size.mean(dim=(2, 3), keepdim=True)
        positions = F.softmax(by_position.flatten(1) / self.temp, dim=1).reshape(by_position.shape)
        cells = feature.shape[2] * feature.shape[3]
        return positions * cells, F.softmax(by_channel / self.temp, dim=1) * feature.shape[1]

    def _related(self, feature: Tensor, mask: nn.Module, block: nn.Module) -> Tensor:
        """Add to each position what the whole map says."""
        share = torch.softmax(_apply(mask, feature).flatten(2), dim=2)
        context = (feature.flatten(2) * share).sum(dim=2)[:, :, None, None]
        return feature + _apply(block, context)

    def _check_features(self, preds_S: Tensor, preds_T: Tensor) -> None:
        check_maps(self, preds_S=preds_S, preds_T=preds_T)
        shapes = f"preds_S has shape {tuple(preds_S.shape)} and preds_T has shape {tuple(preds_T.shape)}"
        if preds_S.shape[1] != self.student_channels or preds_T.shape[1] != self.teacher_channels:
            said = f"student_channels is {self.student_channels} and teacher_channels is {self.teacher_channels}"
            raise refusal(self, f"{shapes}, but {said}.")
        if preds_S.shape[:1] != preds_T.shape[:1] or preds_S.shape[2:] != preds_T.shape[2:]:
            raise refusal(self, f"{shapes}; all but the channels (dim 1) must be equal.")
