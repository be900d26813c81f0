"""Distances of what the FBKD connectors make of features: attention, channels, positions and relations."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fxkd.losses._checks import check_numbers, check_same_shape, refusal
from fxkd.losses._values import full
from fxkd.registry import loss


@loss("FBKDLoss")
class FBKDLoss(nn.Module):
    """Sum four distances of two features, as ``FBKDStudentConnector`` and ``FBKDTeacherConnector`` prepare them.

    With the student's ``(M_s, C_s, channels, positions, relations, feature)`` and the teacher's ``(M_t, C_t,
    positions, relations, feature)``, where M and C are attention over positions and over channels, and
    ``M = (M_s + M_t) / 2`` without gradient::

        loss = loss_weight * (
            mask_l2_weight * sqrt(sum(M * (feature_t - feature)^2))
            + channel_weight * ||mean over H and W of feature_t - channels||
            + spatial_weight * ||positions_t - positions||
            + nonloacl_weight * ||relations_t - relations||
        )

    Each norm is that of the whole batch, divided by nothing. The attention over channels is used by no part, as in
    MMRazor. A distance of 0 has a zero gradient.

    Args:
        mask_l2_weight: Weight of the distance under attention.
        channel_weight: Weight of the distance of the channels' means.
        spatial_weight: Weight of the distance of the positions' means.
        nonloacl_weight: Weight of the distance of the non-local relations; the name is spelt as in MMRazor.
        loss_weight: Factor of the result.

    Shape:
        ``s_input``: M (N, 1, H, W), C (N, C, 1, 1), channels (N, C), positions (N, 1, H, W), relations (N, C, H, W),
        feature (N, C, H, W). ``t_input``: the same without the channels. Gradient reaches both.

    Raises:
        SpecError: An option is no number, a side has not as many parts, or the shapes of two parts differ.

    From "Improve Object Detection with Feature-based Knowledge Distillation", ICLR 2021,
    https://openreview.net/forum?id=uKhGRvM8QNH.

    >>> mask, channels, feature = torch.ones(1, 1, 2, 2), torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 2, 2)
    >>> student = mask, channels, torch.ones(1, 3), mask, feature, feature
    >>> FBKDLoss(channel_weight=1, spatial_weight=10)(student, (mask, channels, 0 * mask, feature, feature))
    tensor(21.7320)
    """

    kind: ClassVar[str] = "feature"

    def __init__(
        self,
        mask_l2_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        nonloacl_weight: float = 7e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_numbers(self, mask_l2_weight=mask_l2_weight, channel_weight=channel_weight)
        check_numbers(self, spatial_weight=spatial_weight, nonloacl_weight=nonloacl_weight, loss_weight=loss_weight)
        self.mask_l2_weight = mask_l2_weight
        self.channel_weight = channel_weight
        self.spatial_weight = spatial_weight
        self.nonloacl_weight = nonloacl_weight
        self.loss_weight = loss_weight

    def forward(self, s_input: Sequence[Tensor], t_input: Sequence[Tensor]) -> Tensor:
        mask_s, _, channels, positions, relations, feature = self._parts("s_input", s_input, 6, "FBKDStudentConnector")
        mask_t, _, positions_t, relations_t, feature_t = self._parts("t_input", t_input, 5, "FBKDTeacherConnector")
        mask = ((mask_s + mask_t) / 2).detach()
        means_t = feature_t.sum(dim=(2, 3)) / max(feature_t.shape[2] * feature_t.shape[3], 1)
        total = (
            self.mask_l2_weight * self._distance("feature", feature, feature_t, mask.sqrt())
            + self.channel_weight * self._distance("channels", channels, means_t)
            + self.spatial_weight * self._distance("positions", positions, positions_t)
            + self.nonloacl_weight * self._distance("relations", relations, relations_t)
        )
        return self.loss_weight * total

    def _parts(self, name: str, given: Sequence[Tensor], count: int, connector: str) -> list[Tensor]:
        if not isinstance(given, (tuple, list)) or len(given) != count:
            found = f"{len(given)} values" if isinstance(given, (tuple, list)) else f"a {type(given).__name__}"
            raise refusal(self, f"{name} is {found}; it takes the {count} that {connector} gives.")
        for index, part in enumerate(given):
            if not isinstance(part, Tensor):
                raise refusal(self, f"{name}[{index}] is a {type(part).__name__}, not a tensor.")
        return [full(part) for part in given]

    def _distance(self, part: str, student: Tensor, teacher: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the length of the difference: torch gives it a zero gradient at 0."""
        check_same_shape(self, **{f"the student's {part}": student, f"the teacher's {part}": teacher})
        difference = teacher - student if scale is None else (teacher - student) * scale
        distance: Tensor = torch.linalg.vector_norm(difference)
        return distance
