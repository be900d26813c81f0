"""Tests of fxkd/connectors/resize.py."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxkd import connectors
from fxkd.connectors import ResizeConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
)
from tests.golden import S4, sine

MAP = sine(3, 4, 6, 4)


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate one axis after the other by hand: weights of the two nearest positions."""
    for dim, wanted in zip((2, 3), size, strict=True):
        given = x.shape[dim]
        place = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * given / wanted - 0.5).clamp(0, given - 1)
        low = place.floor().long()
        high, share = (low + 1).clamp(max=given - 1), place - low
        share = share.reshape([-1 if dim == d else 1 for d in range(4)])
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


def blocks(x: Tensor) -> Tensor:
    return x.unflatten(3, (2, 2)).unflatten(2, (3, 2))


@pytest.mark.parametrize("size", [(3, 2), (12, 8), (7, 5), (6, 4)])
def test_interpolation_agrees(size: tuple[int, int]) -> None:
    assert_agrees(ResizeConnector(size), lambda x: bilinear(x, size), MAP)


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({"mode": "pool"}, lambda x: blocks(x).mean((3, 5))),
        ({"mode": "pool", "method": "max"}, lambda x: blocks(x).amax((3, 5))),
        ({"method": "area"}, lambda x: blocks(x).mean((3, 5))),
        ({"method": "nearest"}, lambda x: x[:, :, ::2, ::2]),
        ({"method": "bicubic"}, lambda x: F.interpolate(x, (3, 2), mode="bicubic")),
        ({"align_corners": True}, lambda x: F.interpolate(x, (3, 2), mode="bilinear", align_corners=True)),
    ],
)
def test_methods_agree(options: dict[str, Any], formula: Any) -> None:
    assert_agrees(ResizeConnector([3, 2], **options), formula, MAP)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"size": 5}, (5, 5)),
        ({"scale": 2}, (12, 8)),
        ({"scale": [0.5, 0.7]}, (3, 2)),
        ({"scale": 0.5, "mode": "pool"}, (3, 2)),
        ({"size": (9, 1), "method": "nearest-exact"}, (9, 1)),
    ],
)
def test_sizes(options: dict[str, Any], shape: tuple[int, int]) -> None:
    assert connectors.build({"type": "ResizeConnector"} | options)(MAP).shape == (3, 4, *shape)


def test_conduct() -> None:
    for mode in "interpolate", "pool":
        connector = ResizeConnector(3, mode=mode)
        assert_layout_does_not_count(connector, S4)
        assert_unchanged(connector, S4)
        assert_finite_in_half(connector, S4)
        assert_compiles(connector, S4)
    assert not connector.state_dict()
    assert repr(connector) == "ResizeConnector(size=(3, 3), method='avg')"
    assert repr(ResizeConnector(scale=2)) == "ResizeConnector(scale=(2, 2), method='bilinear')"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"size is None and scale is None; give one of the two"),
        ({"size": 3, "scale": 2}, r"size is 3 and scale is 2; give one of the two"),
        ({"size": 0}, r"size is 0; it must be a whole number above 0"),
        ({"size": [3, 2.0]}, r"size is 2\.0; it must be a whole number"),
        ({"size": [3, 2, 1]}, r"size is \[3, 2, 1\]; give one number, or two: for height and width"),
        ({"size": "77"}, r"size is '77'; it must be a whole number"),
        ({"scale": -1}, r"scale is -1; it must be above 0"),
        ({"scale": "2"}, r"scale is '2'; it must be a number"),
        ({"size": 3, "mode": "pol"}, r"mode is 'pol'; it can be 'interpolate', 'pool'\. Did you mean 'pool'"),
        ({"size": 3, "method": "avg"}, r"method is 'avg'; it can be 'bilinear', 'bicubic', 'nearest', 'nearest-exact'"),
        (
            {"size": 3, "method": "nearest", "align_corners": True},
            r"align_corners is for bilinear and bicubic, and",
        ),
        ({"size": 3, "align_corners": 1}, r"align_corners is 1; it must be true or false"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^ResizeConnector: {message}"):
        ResizeConnector(**options)


def test_wrong_features() -> None:
    with pytest.raises(SpecError, match=r"^ResizeConnector: feature has shape \(2, 8, 4\); it takes a map"):
        ResizeConnector(3)(torch.zeros(2, 8, 4))
    with pytest.raises(SpecError, match=r"^ResizeConnector: nothing is left of a map of 2x5 at a scale of \(0\.4"):
        ResizeConnector(scale=0.4)(S4)
