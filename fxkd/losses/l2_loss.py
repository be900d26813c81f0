"""Euclidean distance of two features."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fxkd.losses._checks import check_choice, check_numbers, check_same_shape
from fxkd.losses._values import full, rows
from fxkd.registry import loss


def _unit_samples(feature: Tensor) -> Tensor:
    """Return each sample as a row of length 1, (N, features); a sample of zeros stays zero."""
    samples = rows(feature)
    length: Tensor = torch.linalg.vector_norm(samples, dim=1, keepdim=True)
    return samples / length.masked_fill(length == 0, 1.0)


@loss("L2Loss")
class L2Loss(nn.Module):
    """Sum the squared differences of two features.

    With ``q`` the sum of ``(s_feature - t_feature)^2`` over everything::

        loss = loss_weight * q / N           default
        loss = loss_weight * q / elements    div_element
        loss = loss_weight * sqrt(q)         dist

    Args:
        loss_weight: Factor of the result.
        normalize: First scale each sample of both features to the length ``mult``. A sample of zeros stays zero.
        mult: The length that ``normalize`` gives; without ``normalize`` it does nothing.
        div_element: Divide by the number of elements of one feature instead of by N.
        dist: Take the distance, divided by nothing; ``div_element`` then does nothing. Its gradient is 0 where the
            features are equal.

    Shape:
        ``s_feature`` and ``t_feature`` have one shape, (N, ...). Gradient reaches both.

    Raises:
        SpecError: An option has a value it cannot have, or the shapes differ.

    From "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550; with ``normalize=False, dist=True`` from "Be Your Own
    Teacher", arXiv 1905.08094.

    >>> student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]])
    >>> L2Loss()(student, teacher)
    tensor(0.8000)
    >>> L2Loss(normalize=False, dist=True)(student, teacher)
    tensor(4.)
    """

    kind: ClassVar[str] = "feature"

    def __init__(
        self,
        loss_weight: float = 1.0,
        normalize: bool = True,
        mult: float = 1.0,
        div_element: bool = False,
        dist: bool = False,
    ) -> None:
        super().__init__()
        check_numbers(self, loss_weight=loss_weight, mult=mult)
        for name, flag in {"normalize": normalize, "div_element": div_element, "dist": dist}.items():
            check_choice(self, name, flag, (True, False))
        self.loss_weight = loss_weight
        self.normalize = normalize
        self.mult = mult
        self.div_element = div_element
        self.dist = dist

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        check_same_shape(self, s_feature=s_feature, t_feature=t_feature)
        s_feature, t_feature = full(s_feature), full(t_feature)
        if self.normalize:
            s_feature, t_feature = _unit_samples(s_feature) * self.mult, _unit_samples(t_feature) * self.mult
        difference = s_feature - t_feature
        if self.dist:
            distance: Tensor = torch.linalg.vector_norm(difference)
            return self.loss_weight * distance
        divisor = difference.numel() if self.div_element else difference.shape[0]
        return self.loss_weight * difference.pow(2).sum() / max(divisor, 1)
