"""Tests of fxkd/connectors/crd.py."""

from typing import Any

import pytest
import torch

from fxkd.connectors import CRDConnector
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
    assert_golden(with_known_parameters(CRDConnector(40, 7))(S4).sum(), 0.1537396101)


def test_agrees() -> None:
    connector = CRDConnector(40, 7).double()

    def formula(x: torch.Tensor) -> torch.Tensor:
        z = x.reshape(3, 40) @ connector.linear.weight.mT + connector.linear.bias
        return z / z.square().sum(1, keepdim=True).sqrt()

    assert_agrees(connector, formula, S4)


def test_names_and_defaults() -> None:
    shapes = {name: tuple(value.shape) for name, value in CRDConnector().state_dict().items()}
    assert shapes == {"linear.weight": (128, 1024), "linear.bias": (128,)}


def test_vectors_of_length_one() -> None:
    torch.testing.assert_close(CRDConnector(40, 7)(S4.float()).norm(dim=1), torch.ones(3))


def test_a_zero_vector_stays_finite() -> None:
    connector = CRDConnector(40, 7)
    with torch.no_grad():
        connector.linear.bias.zero_()
    feature = torch.zeros(2, 40, requires_grad=True)
    connector(feature).sum().backward()
    assert feature.grad is not None
    assert feature.grad.isfinite().all()


def test_conduct() -> None:
    assert_layout_does_not_count(CRDConnector(40, 7), S4.float())
    assert_finite_in_half(CRDConnector(40, 7), S4)
    assert_compiles(CRDConnector(40, 7).double(), S4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim_in": 0}, r"dim_in is 0; it must be a whole number above 0"),
        ({"dim_out": "128"}, r"dim_out is '128'; it must be a whole number"),
        ({"init_cfg": {}}, r"init_cfg is \{\}; it can only be None"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^CRDConnector: {message}"):
        CRDConnector(**options)


@pytest.mark.parametrize("shape", [(3, 41), (3, 4, 2, 4), (40,)])
def test_wrong_features(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        SpecError, match=r"^CRDConnector: feature has shape .*; a sample of it must have dim_in values, 40"
    ):
        CRDConnector(40, 7)(torch.zeros(shape))
