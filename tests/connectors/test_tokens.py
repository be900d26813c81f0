"""Tests of fxkd/connectors/tokens_to_map.py and map_to_tokens.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import connectors
from fxkd.connectors import MapToTokensConnector, TokensToMapConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
)
from tests.golden import S4, sine

TOKENS = sine(3, 13, 4)


def laid_out(height: int, width: int, skip: int) -> Any:
    def formula(x: Tensor) -> Tensor:
        rows = [torch.stack([x[:, skip + i * width + j] for j in range(width)], 2) for i in range(height)]
        return torch.stack(rows, 2)

    return formula


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({"height": 3, "width": 4, "prefix_tokens": 1}, laid_out(3, 4, 1)),
        ({"height": 2, "prefix_tokens": 1}, laid_out(2, 6, 1)),
        ({"width": 2, "prefix_tokens": 1}, laid_out(6, 2, 1)),
        ({"prefix_tokens": 4}, laid_out(3, 3, 4)),
        ({"height": 1}, laid_out(1, 13, 0)),
    ],
)
def test_tokens_to_map_agrees(options: dict[str, Any], formula: Any) -> None:
    assert_agrees(connectors.build({"type": "TokensToMapConnector"} | options), formula, TOKENS)


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_map_to_tokens_agrees(prefix: int) -> None:
    def formula(x: Tensor) -> Tensor:
        tokens = [x[:, :, i, j] for i in range(2) for j in range(5)]
        return torch.stack([torch.zeros(3, 4, dtype=x.dtype)] * prefix + tokens, 1)

    connector = connectors.build({"type": "MapToTokensConnector", "prefix_tokens": prefix})
    assert_agrees(connector, formula, S4)


@pytest.mark.parametrize("prefix", [0, 1])
def test_there_and_back(prefix: int) -> None:
    tokens = MapToTokensConnector(prefix)(S4)
    torch.testing.assert_close(TokensToMapConnector(2, 5, prefix)(tokens), S4, rtol=0, atol=0)


def test_conduct() -> None:
    assert_layout_does_not_count(MapToTokensConnector(1), S4)
    assert_finite_in_half(MapToTokensConnector(1), S4)
    assert_compiles(MapToTokensConnector(1), S4)
    scattered = TOKENS.mT.contiguous().mT
    connector = TokensToMapConnector(3, 4, prefix_tokens=1)
    torch.testing.assert_close(connector(scattered), connector(TOKENS))
    assert_finite_in_half(connector, TOKENS)
    assert_compiles(connector, TOKENS)
    assert_compiles(TokensToMapConnector(prefix_tokens=4), TOKENS)
    assert repr(connector) == "TokensToMapConnector(height=3, width=4, prefix_tokens=1)"
    assert repr(MapToTokensConnector(1)) == "MapToTokensConnector(prefix_tokens=1)"


def test_any_size_compiles() -> None:
    connector = TokensToMapConnector()
    compiled = torch.compile(connector, fullgraph=True, dynamic=True, backend="aot_eager")
    for patches in 4, 9, 16:
        tokens = sine(2, patches, 3)
        torch.testing.assert_close(compiled(tokens), connector(tokens))


@pytest.mark.parametrize(
    ("connector", "options", "message"),
    [
        (TokensToMapConnector, {"height": 0}, r"height is 0; it must be a whole number above 0"),
        (TokensToMapConnector, {"width": 2.0}, r"width is 2\.0; it must be a whole number"),
        (TokensToMapConnector, {"prefix_tokens": -1}, r"prefix_tokens is -1; it must be a whole number of 0 or more"),
        (TokensToMapConnector, {"prefix_tokens": True}, r"prefix_tokens is True; it must be a whole number of 0 or"),
        (MapToTokensConnector, {"prefix_tokens": 0.0}, r"prefix_tokens is 0\.0; it must be a whole number of 0 or"),
        (MapToTokensConnector, {"prefix_tokens": None}, r"prefix_tokens is None; it must be a whole number of 0 or"),
    ],
)
def test_wrong_options(connector: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^{connector.__name__}: {message}"):
        connector(**options)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (2, 4), r"feature has shape \(2, 4\); it takes tokens \(N, L, C\)"),
        ({}, (2, 5, 3), r"5 patches are no square; give height and width, or another number of prefix_tokens"),
        ({"prefix_tokens": 1}, (2, 9, 3), r"8 patches are no square \(behind 1 prefix tokens\); give height"),
        ({"prefix_tokens": 1}, (2, 1, 3), r"0 patches are no square"),
        ({"prefix_tokens": 3}, (2, 1, 3), r"-2 patches are no square"),
        ({"height": 2}, (2, 9, 3), r"9 patches are no 2 rows of 4; change height, width or prefix_tokens"),
        ({"height": 2, "width": 4}, (2, 9, 3), r"9 patches are no 2 rows of 4; change"),
    ],
)
def test_wrong_tokens(options: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^TokensToMapConnector: {message}"):
        TokensToMapConnector(**options)(torch.zeros(shape))


def test_no_map() -> None:
    with pytest.raises(SpecError, match=r"^MapToTokensConnector: feature has shape \(2, 9, 3\); it takes a map"):
        MapToTokensConnector()(torch.zeros(2, 9, 3))
