"""Contrastive representation distillation: a feature as a point on the unit sphere."""

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_init_cfg, check_tensor, refusal
from fxkd.registry import connector


@connector("CRDConnector")
class CRDConnector(nn.Module):
    """Map a feature to a vector of length one.

    ::

        output = z / ||z||,  z = linear(flat(feature))

    Args:
        dim_in: Number of values of a sample's feature, all axes but the first together.
        dim_out: Width of the vector.
        init_cfg: Only None; weights can be changed after building.

    The parameters lie under ``linear``.

    Shape:
        (N, ...) with dim_in values a sample to (N, dim_out).

    Raises:
        SpecError: An option has a value it cannot have, or the feature does not fit.

    From "Contrastive Representation Distillation", arXiv 1910.10699.

    >>> import torch
    >>> vectors = CRDConnector(512, 128)(torch.ones(2, 512, 1, 1))
    >>> vectors.shape, torch.allclose(vectors.norm(dim=1), torch.ones(2))
    (torch.Size([2, 128]), True)
    """

    def __init__(self, dim_in: int = 1024, dim_out: int = 128, init_cfg: None = None) -> None:
        super().__init__()
        check_counts(self, dim_in=dim_in, dim_out=dim_out)
        check_init_cfg(self, init_cfg)
        self.linear = nn.Linear(dim_in, dim_out)

    def forward(self, feature: Tensor) -> Tensor:
        check_tensor(self, feature)
        flat = feature.flatten(1) if feature.ndim > 1 else feature
        if feature.ndim < 2 or flat.shape[1] != self.linear.in_features:
            problem = f"a sample of it must have dim_in values, {self.linear.in_features}."
            raise refusal(self, f"feature has shape {tuple(feature.shape)}; {problem} Pool a map before, in a chain.")
        return F.normalize(self.linear(flat), dim=1)
