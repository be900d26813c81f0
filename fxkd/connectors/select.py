"""A part of a dimension."""

from torch import Tensor, nn

from fxkd.errors import SpecError
from fxkd.registry import connector


@connector("SelectConnector")
class SelectConnector(nn.Module):
    """Take a part of one dimension: one place (``index``), or those from ``start`` to before ``stop``.

    Args:
        dim: The dimension; negative ones count from the end.
        index: The place to take; the dimension is then gone.
        start: The first place to take, by default 0.
        stop: The place before which to end, by default the end.

    Shape:
        Any that has the dimension; with ``index`` one dimension less.

    Raises:
        SpecError: Neither or both of ``index`` and a range are given, or a value is no whole number; the feature does
            not have the dimension or the place.

    >>> import torch
    >>> feature = torch.arange(6).reshape(2, 3)
    >>> SelectConnector(1, index=0)(feature), SelectConnector(1, start=1)(feature)
    (tensor([0, 3]), tensor([[1, 2],
            [4, 5]]))
    """

    def __init__(self, dim: int, index: int | None = None, start: int | None = None, stop: int | None = None) -> None:
        super().__init__()
        for name, value in {"dim": dim, "index": index, "start": start, "stop": stop}.items():
            if type(value) is not int and (name == "dim" or value is not None):
                raise SpecError([f"SelectConnector: {name} is {value!r}; it must be a whole number."])
        if (index is None) == (start is None and stop is None):
            raise SpecError(["SelectConnector: takes either 'index', or 'start' and 'stop' (one of them is enough)."])
        self.dim, self.index, self.start, self.stop = dim, index, start, stop

    def forward(self, feature: Tensor) -> Tensor:
        if not -feature.dim() <= self.dim < feature.dim():
            raise SpecError([f"SelectConnector: dim is {self.dim}; the feature has shape {tuple(feature.shape)}."])
        if self.index is None:
            return feature[(slice(None),) * (self.dim % feature.dim()) + (slice(self.start, self.stop),)]
        if not -feature.shape[self.dim] <= self.index < feature.shape[self.dim]:
            raise SpecError([f"SelectConnector: index is {self.index}; the feature has shape {tuple(feature.shape)}."])
        return feature.select(self.dim, self.index)
