"""Tests of fxkd/connectors/norm.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd.connectors import NormConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    with_known_parameters,
)
from tests.golden import S4, assert_golden


def test_golden() -> None:
    assert_golden(NormConnector(4, {"type": "BN"}).double()(S4).abs().sum(), 108.4137494737)


def test_agrees() -> None:
    connector = with_known_parameters(NormConnector(4, {"type": "BN", "eps": 1e-3}))
    weight, bias = (value.reshape(1, 4, 1, 1) for value in connector.parameters())

    def formula(x: Tensor) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    assert_agrees(connector, formula, S4)


@pytest.mark.parametrize(
    "config", [{"type": "BN"}, {"type": "GN", "num_groups": 2}, {"type": "LN"}, {"type": "SyncBN"}]
)
def test_names(config: dict[str, Any]) -> None:
    assert [name for name, _ in NormConnector(4, config).named_parameters()] == ["norm.weight", "norm.bias"]


def test_conduct() -> None:
    assert_layout_does_not_count(NormConnector(4, {"type": "BN"}), S4.float())
    assert_finite_in_half(NormConnector(4, {"type": "BN"}), S4)
    assert_compiles(NormConnector(4, {"type": "GN", "num_groups": 2}).double(), S4)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"^NormConnector: in_channels is 0; it must be a whole number above 0"):
        NormConnector(0, {"type": "BN"})
    with pytest.raises(SpecError, match=r"^NormConnector: norm_cfg: type is 'Bn'; .* Did you mean 'BN'"):
        NormConnector(4, {"type": "Bn"})
    with pytest.raises(SpecError, match=r"^NormConnector: norm_cfg is None; it must be a mapping"):
        NormConnector(4, None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^NormConnector: init_cfg is 1; it can only be None"):
        NormConnector(4, {"type": "BN"}, init_cfg=1)  # type: ignore[arg-type]


def test_a_norm_alone_has_no_default() -> None:
    with pytest.raises(TypeError):
        NormConnector(4)  # type: ignore[call-arg]
    assert isinstance(NormConnector(4, {"type": "IN"}).norm, torch.nn.InstanceNorm2d)
