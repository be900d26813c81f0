"""Tests of fxkd/connectors/torch_functional.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import connectors
from fxkd.connectors import TorchFunctionalConnector
from fxkd.connectors.torch_functional import functions
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
)
from tests.golden import S4

LISTED = [
    ("adaptive_avg_pool2d", {"output_size": 1}, S4.mean((2, 3), keepdim=True)),
    ("adaptive_max_pool2d", {"output_size": 1}, S4.amax((2, 3), keepdim=True)),
    ("avg_pool2d", {"kernel_size": [2, 5]}, S4.mean((2, 3), keepdim=True)),
    ("max_pool2d", {"kernel_size": [2, 5]}, S4.amax((2, 3), keepdim=True)),
    ("dropout", {"p": 0.5, "training": False}, S4),
    ("dropout2d", {"p": 1.0}, torch.zeros_like(S4)),
    ("normalize", {}, S4 / S4.square().sum(1, keepdim=True).sqrt()),
    ("relu", {}, S4.clamp(min=0)),
    ("softmax", {"dim": 1}, S4.exp() / S4.exp().sum(1, keepdim=True)),
    ("interpolate", {"scale_factor": 2}, S4.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    ("softplus", {}, (1 + S4.exp()).log()),  # from here on more than MMRazor lists
    ("pad", {"pad": [1, 0]}, torch.cat([torch.zeros(3, 4, 2, 1, dtype=S4.dtype), S4], dim=3)),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), LISTED)
def test_functions_by_name(name: str, arguments: dict[str, Any], expected: Tensor) -> None:
    config = {"type": "TorchFunctionalConnector", "function_name": name, "func_args": arguments}
    torch.testing.assert_close(connectors.build(config)(S4), expected)


def test_agrees() -> None:
    connector = TorchFunctionalConnector("normalize", {"p": 1.0})
    assert_agrees(connector, lambda x: x / x.abs().sum(1, keepdim=True), S4)


def test_dropout_drops_in_eval_mode_too() -> None:
    connector = TorchFunctionalConnector("dropout", {"p": 1.0}).eval()
    assert not connector(S4).any()


def test_what_is_listed() -> None:
    known = functions()
    assert {"relu", "interpolate", "gelu", "avg_pool2d"} <= known.keys()
    strangers = {"relu_", "threshold_", "boolean_dispatch", "has_torch_function", "handle_torch_function", "torch"}
    assert not strangers & known.keys()


def test_conduct() -> None:
    connector = TorchFunctionalConnector("adaptive_avg_pool2d", {"output_size": [1, 2]})
    assert_layout_does_not_count(connector, S4)
    assert_compiles(connector, S4)
    assert_finite_in_half(connector, S4)
    assert_unchanged(TorchFunctionalConnector("relu", {"inplace": True}), S4.clone())
    assert not connector.state_dict()
    assert "adaptive_avg_pool2d, output_size=[1, 2]" in repr(connector)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"function_name is None; give the name of one of torch\.nn\.functional\."),
        (
            {"function_name": "rellu"},
            r"function_name is 'rellu'; torch\.nn\.functional has no such .* Did you mean 'relu'",
        ),
        ({"function_name": "Tensor"}, r"function_name is 'Tensor'; torch\.nn\.functional has no such function"),
        ({"function_name": "relu", "func_args": 3}, r"func_args is 3; give a mapping of the arguments of relu\."),
        (
            {"function_name": "relu", "func_args": {"p": 3}},
            r"func_args: got an unexpected keyword argument 'p'; beside",
        ),
        (
            {"function_name": "mse_loss"},
            r"func_args: missing a required argument: 'target'; beside the feature mse_loss",
        ),
        ({"function_name": "relu", "init_cfg": 1}, r"init_cfg is 1; it can only be None"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^TorchFunctionalConnector: {message}"):
        TorchFunctionalConnector(**options)


def test_wrong_features() -> None:
    with pytest.raises(SpecError, match=r"^TorchFunctionalConnector: feature is a dict, not a tensor; pick one part"):
        TorchFunctionalConnector("relu")({"x": S4})
