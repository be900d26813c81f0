"""Tests of fxkd/fitting.py: each choice is built, run on the one shape, and gives the other."""

from typing import Any

import pytest
import torch
import yaml
from torch import nn

from fxkd import connectors
from fxkd.errors import SpecError
from fxkd.fitting import fitting

CONV, LINEAR, RESIZE = "ConvModuleConnector", "LinearConnector", "ResizeConnector"
TO_MAP, TO_TOKENS = "TokensToMapConnector", "MapToTokensConnector"
POOLED = ["torch.nn.AdaptiveAvgPool2d", "torch.nn.Flatten"]


def steps(given: tuple[int, ...], wanted: tuple[int, ...]) -> list[dict[str, Any]]:
    chosen = fitting(given, wanted)
    return chosen if isinstance(chosen, list) else [chosen]


@pytest.mark.parametrize(
    ("given", "wanted", "types"),
    [
        ((2, 4, 6, 5), (2, 4, 6, 5), ["torch.nn.Identity"]),
        ((2, 3), (2, 3), ["torch.nn.Identity"]),
        ((2, 4, 6, 5, 3), (2, 4, 6, 5, 3), ["torch.nn.Identity"]),
        # maps
        ((2, 4, 6, 5), (2, 7, 6, 5), [CONV]),
        ((2, 4, 6, 5), (2, 4, 3, 5), [RESIZE]),
        ((2, 4, 6, 5), (2, 4, 7, 4), [RESIZE]),
        ((2, 4, 6, 5), (2, 7, 3, 2), [RESIZE, CONV]),
        ((2, 4, 6, 5), (2, 7, 12, 10), [CONV, RESIZE]),
        # vectors
        ((2, 3), (2, 7), [LINEAR]),
        ((2, 3, 6, 5), (2, 7), [*POOLED, LINEAR]),
        ((2, 7, 6, 5), (2, 7), POOLED),
        # tokens
        ((2, 30, 3), (2, 30, 7), [LINEAR]),
        ((2, 31, 3), (2, 30, 3), [TO_MAP, TO_TOKENS]),
        ((2, 31, 3), (2, 30, 7), [TO_MAP, TO_TOKENS, LINEAR]),
        ((2, 30, 3), (2, 31, 7), [TO_MAP, TO_TOKENS, LINEAR]),
        # tokens to maps
        ((2, 30, 3), (2, 3, 6, 5), [TO_MAP]),
        ((2, 31, 3), (2, 7, 6, 5), [TO_MAP, CONV]),
        ((2, 197, 3), (2, 7, 7, 7), [TO_MAP, RESIZE, CONV]),
        ((2, 49, 3), (2, 7, 14, 14), [TO_MAP, CONV, RESIZE]),
        ((2, 36, 3), (2, 3, 5, 7), [TO_MAP]),  # a square too, but the partner's sides come first
        # maps to tokens
        ((2, 3, 6, 5), (2, 30, 3), [TO_TOKENS]),
        ((2, 3, 6, 5), (2, 31, 7), [CONV, TO_TOKENS]),
        ((2, 3, 7, 7), (2, 197, 7), [CONV, RESIZE, TO_TOKENS]),
        ((2, 3, 28, 28), (2, 196, 7), [RESIZE, CONV, TO_TOKENS]),
    ],
)
def test_what_is_chosen(given: tuple[int, ...], wanted: tuple[int, ...], types: list[str]) -> None:
    chosen = fitting(given, wanted)
    assert [step["type"] for step in steps(given, wanted)] == types
    assert isinstance(chosen, list) is (len(types) > 1)
    assert yaml.safe_load(yaml.safe_dump(chosen)) == chosen
    connector = connectors.build(chosen)
    feature = torch.randn(given, requires_grad=True)
    output = connector(feature)
    assert output.shape == wanted
    output.square().sum().backward()
    assert feature.grad is not None
    assert feature.grad.any()
    assert not any(isinstance(part, nn.ReLU) for part in connector.modules())


def test_shrinking_pools_and_growing_interpolates() -> None:
    assert fitting((2, 4, 6, 5), (2, 4, 6, 2)) == {"type": RESIZE, "size": [6, 2], "mode": "pool"}
    assert fitting((2, 4, 6, 5), (2, 4, 3, 6)) == {"type": RESIZE, "size": [3, 6]}


def test_size_and_channels_commute() -> None:
    """The cheaper order gives what the other would."""
    torch.manual_seed(0)
    for given, wanted in ((2, 4, 6, 4), (2, 7, 3, 2)), ((2, 4, 3, 2), (2, 7, 6, 4)):
        first, second = connectors.build(fitting(given, wanted))
        feature = torch.randn(given)
        torch.testing.assert_close(second(first(feature)), first(second(feature)))


def test_class_tokens() -> None:
    tokens = torch.randn(2, 31, 3)
    torch.testing.assert_close(connectors.build(fitting((2, 31, 3), (2, 30, 3)))(tokens), tokens[:, 1:])
    padded = connectors.build(fitting((2, 31, 3), (2, 32, 3)))(tokens)
    torch.testing.assert_close(padded, torch.cat([torch.zeros(2, 1, 3), tokens], 1))
    laid_out = connectors.build(fitting((2, 31, 3), (2, 3, 5, 6)))(tokens)
    torch.testing.assert_close(laid_out, tokens[:, 1:].mT.reshape(2, 3, 5, 6))
    back = connectors.build(fitting((2, 3, 5, 6), (2, 31, 3)))(laid_out)
    torch.testing.assert_close(back, torch.cat([torch.zeros(2, 1, 3), tokens[:, 1:]], 1))


@pytest.mark.parametrize(
    ("given", "wanted", "advice"),
    [
        ((2, 4, 6, 5), (3, 4, 6, 5), "the samples, differs"),
        ((2, 4, 6, 5), (3, 7, 6, 5), "choose other points"),
        ((), (2,), "the samples, differs"),
        ((2, 36, 3), (2, 9, 3), "for (N, C, L) write out a ConvModuleConnector with 'conv_cfg: {type: Conv1d}'"),
        ((2, 33, 3), (2, 7, 6, 5), "the tokens are no map"),
        ((2, 3, 6, 5), (2, 33, 7), "write out TokensToMapConnector or MapToTokensConnector with their prefix_tokens"),
        ((2, 30, 3), (2, 3), "picks one token"),
        ((2, 3), (2, 30, 3), "put 'auto' on the other side"),
        ((2, 3), (2, 3, 6, 5), "put 'auto' on the other side"),
        ((2, 3, 4, 4, 4), (2, 5, 4, 4, 4), "write out a connector, or a module of your own"),
        ((2,), (2, 3), "write out a connector"),
    ],
)
def test_what_is_refused(given: tuple[int, ...], wanted: tuple[int, ...], advice: str) -> None:
    with pytest.raises(SpecError) as caught:
        fitting(given, wanted)
    assert str(caught.value).startswith(f"'auto' cannot make {given} fit {wanted}: ")
    assert advice in str(caught.value)
