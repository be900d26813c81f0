"""Size of a feature, wanted large: for generators of data-free distillation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_numbers, check_tensor
from fxkd.losses._values import average, full
from fxkd.registry import loss


@loss("ActivationLoss")
class ActivationLoss(nn.Module):
    """Let generated images be ones that excite the teacher.

    ::

        loss = -loss_weight * mean(|feat_T|)    norm_type "abs"
        loss = -loss_weight * ||feat_T||        norm_type "norm"

    Args:
        loss_weight: Factor of the result.
        norm_type: ``"abs"`` or ``"norm"``. The norm is that of the whole batch, divided by nothing, so it grows with
            N; its gradient is 0 where the feature is all zeros.

    Shape:
        ``feat_T`` (N, ...); the gradient goes through it to the generator.

    Raises:
        SpecError: An option has a value it cannot have, or the feature is no tensor.

    From "DAFL: Data-Free Learning of Student Networks", arXiv 1904.01186.

    >>> import torch
    >>> ActivationLoss()(torch.tensor([[3.0, -4.0]])), ActivationLoss(norm_type="norm")(torch.tensor([[3.0, -4.0]]))
    (tensor(-3.5000), tensor(-5.))
    """

    kind: ClassVar[str] = "data-free"

    def __init__(self, loss_weight: float = 1.0, norm_type: str = "abs") -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight)
        check_choice(self, "norm_type", norm_type, ("norm", "abs"))
        self.loss_weight = loss_weight
        self.norm_type = norm_type

    def forward(self, feat_T: Tensor) -> Tensor:
        check_tensor(self, feat_T=feat_T)
        feature = full(feat_T)
        size: Tensor = average(feature.abs()) if self.norm_type == "abs" else torch.linalg.vector_norm(feature)
        return -self.loss_weight * size
