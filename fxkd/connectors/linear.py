"""Change the width of a feature's last axis."""

from torch import Tensor, nn

from fxkd.connectors._checks import check_counts
from fxkd.errors import SpecError
from fxkd.registry import connector


@connector("LinearConnector")
class LinearConnector(nn.Module):
    """Map the last axis of a feature by a matrix and a bias.

    ::

        output = feature @ weight^T + bias

    Args:
        in_features: Width of the last axis of the feature.
        out_features: Width it gets.
        bias: Whether to add a bias.

    Shape:
        (..., in_features) to (..., out_features): vectors (N, C) or the hidden states (N, L, C) of a transformer.

    Raises:
        SpecError: A width is no whole number above 0, or the feature's last axis is not ``in_features`` wide.

    Such a map between hidden sizes is part of "TinyBERT: Distilling BERT for Natural Language Understanding", arXiv
    1909.10351.

    >>> import torch
    >>> LinearConnector(312, 768)(torch.zeros(2, 128, 312)).shape
    torch.Size([2, 128, 768])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        check_counts(self, in_features=in_features, out_features=out_features)
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, feature: Tensor) -> Tensor:
        width = self.linear.in_features
        if feature.shape[-1] != width:
            problem = f"feature has shape {tuple(feature.shape)}; its last axis must be in_features, {width}."
            raise SpecError([f"{type(self).__name__}: {problem} For channels in dim 1 take ConvModuleConnector."])
        output: Tensor = self.linear(feature)
        return output
