"""Tests of fxkd/connectors/byot.py."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxkd.connectors import BYOTConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
    with_known_parameters,
)
from tests.golden import assert_golden, sine


def small(**more: Any) -> BYOTConnector:
    torch.manual_seed(0)
    return BYOTConnector(2, 8, 5, **({"expansion": 2, "pool_size": 4, "stride": 2} | more))


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


def sep_conv(x: Tensor, parameters: list[Tensor], stride: int) -> Tensor:
    for index, step in ((0, stride), (4, 1)):
        depthwise, pointwise, *norm = parameters[index : index + 4]
        x = F.conv2d(x.clamp(min=0), depthwise, None, step, depthwise.shape[-1] // 2, groups=x.shape[1])
        x = batch_norm(F.conv2d(x, pointwise), *norm)
    return x


def by_hand(connector: BYOTConnector, stride: int, pool: int) -> Any:
    p = [value for name, value in connector.named_parameters()]

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        attention = batch_norm(sep_conv(x, p[:8], stride), *p[8:10]).clamp(min=0)
        if stride == 2:
            attention = F.interpolate(attention, scale_factor=2, mode="bilinear", align_corners=False)
        x = x / (1 + (-attention).exp())
        x = sep_conv(sep_conv(x, p[10:18], stride), p[18:26], stride)
        vector = x[:, :, :pool, :pool].mean((2, 3))
        return vector, vector @ p[26].mT + p[27]

    return formula


def test_golden() -> None:
    vector, logits = with_known_parameters(small())(sine(2, 4, 16, 16))
    assert (vector.shape, logits.shape) == ((2, 16), (2, 5))
    assert_golden(vector.sum(), 0.1430656196)
    assert_golden(logits.sum(), -0.0008148168)


@pytest.mark.parametrize(("stride", "kernel", "pool", "side"), [(2, 3, 4, 16), (2, 5, 2, 8), (1, 3, 6, 6)])
def test_agrees(stride: int, kernel: int, pool: int, side: int) -> None:
    connector = small(stride=stride, kernel_size=kernel, pool_size=pool).double()
    assert_agrees(connector, by_hand(connector, stride, pool), sine(2, 4, side, side))


@pytest.mark.parametrize("side", [13, 15])
def test_odd_sizes(side: int) -> None:
    vector, logits = small()(torch.zeros(2, 4, side, side))
    assert (vector.shape, logits.shape) == ((2, 16), (2, 5))


def test_without_a_step() -> None:
    vector, _ = BYOTConnector(4, 4, 5, expansion=1)(torch.zeros(2, 4, 4, 4))
    assert vector.shape == (2, 4)


def test_names() -> None:
    names = {name.split(".")[0] for name in small().state_dict()}
    assert names == {"attention", "scala", "fc"}
    assert small().state_dict()["fc.weight"].shape == (5, 16)


def test_conduct() -> None:
    assert_layout_does_not_count(small(), sine(2, 4, 16, 16).float())
    assert_unchanged(small(), sine(2, 4, 16, 16).float())
    assert_finite_in_half(small(), sine(2, 4, 16, 16))


def test_compiles() -> None:
    assert_compiles(small().double().eval(), sine(4, 4, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channel": -1}, r"in_channel is -1; it must be a whole number above 0"),
        ({"num_classes": None}, r"num_classes is None; it must be a whole number"),
        ({"expansion": 0.5}, r"expansion is 0\.5; it must be a whole number"),
        ({"pool_size": 0}, r"pool_size is 0; it must be a whole number"),
        ({"kernel_size": 4}, r"kernel_size is 4; it can be 3, 5\."),
        ({"stride": 3}, r"stride is 3; it can be 1, 2\."),
        ({"out_channel": 24}, r"out_channel is 24; it must be in_channel, 2, times a power of two\."),
        ({"out_channel": 1}, r"out_channel is 1; it must be in_channel, 2, times a power of two\."),
        ({"init_cfg": 1}, r"init_cfg is 1; it can only be None"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^BYOTConnector: {message}"):
        BYOTConnector(**({"in_channel": 2, "out_channel": 8, "num_classes": 5} | options))


def test_wrong_features() -> None:
    with pytest.raises(SpecError, match=r"feature has shape \(2, 3, 16, 16\); .* must be in_channel \* expansion, 4\."):
        small()(torch.zeros(2, 3, 16, 16))
    with pytest.raises(SpecError, match=r"^BYOTConnector: 8x8 is left of the feature for a pool_size of 4, which must"):
        small()(torch.zeros(2, 4, 32, 32))
    with pytest.raises(SpecError, match=r"^BYOTConnector: 2x2 is left .* change pool_size or stride\."):
        small()(torch.zeros(2, 4, 8, 8))
