"""Tests of fxkd/connectors/linear.py."""

from typing import Any

import pytest
import torch
from torch import nn

from fxkd import connectors
from fxkd.connectors import LinearConnector
from fxkd.errors import SpecError
from tests.golden import S2, sine


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (2, 0, 6)])
def test_maps_the_last_axis(shape: tuple[int, ...]) -> None:
    connector = LinearConnector(6, 5).double()
    feature = sine(*shape)
    weight, bias = connector.linear.weight, connector.linear.bias
    torch.testing.assert_close(connector(feature), (feature.unsqueeze(-2) * weight).sum(-1) + bias)


def test_without_bias() -> None:
    connector = connectors.build({"type": "LinearConnector", "in_features": 6, "out_features": 5, "bias": False})
    assert [name for name, _ in connector.named_parameters()] == ["linear.weight"]


def test_differentiable() -> None:
    connector = LinearConnector(6, 2).double()
    assert torch.autograd.gradcheck(connector, S2.clone().requires_grad_())


def test_compiles() -> None:
    connector = LinearConnector(6, 2).double()
    compiled = torch.compile(connector, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in S2, S2[:2]:
        torch.testing.assert_close(compiled(batch), connector(batch))


def test_a_list_builds_a_chain() -> None:
    chain = connectors.build(
        [
            {"type": "ConvModuleConnector", "in_channel": 4, "out_channel": 8},
            nn.Flatten(),
            {"type": "LinearConnector", "in_features": 80, "out_features": 3},
        ]
    )
    assert isinstance(chain, nn.Sequential)
    assert chain(torch.zeros(2, 4, 2, 5)).shape == (2, 3)


def test_wrong_width() -> None:
    with pytest.raises(SpecError, match=r"LinearConnector: feature has shape \(4, 6\); its last axis must be .* 5\."):
        LinearConnector(5, 2)(torch.zeros(4, 6))


@pytest.mark.parametrize("width", [0, -3, 6.0, "6", True])
def test_a_width_is_a_number(width: Any) -> None:
    with pytest.raises(SpecError, match=r"^LinearConnector: in_features is .*; it must be a whole number above 0\."):
        LinearConnector(width, 5)
    with pytest.raises(SpecError, match=r"^LinearConnector: out_features is .*; it must be a whole number above 0\."):
        LinearConnector(5, width)
