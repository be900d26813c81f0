"""Tests of fxkd/connectors/torch_nn.py."""

from typing import Any

import pytest
import torch
from torch import nn

from fxkd import connectors
from fxkd.connectors import TorchNNConnector
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
    ("AdaptiveAvgPool2d", {"output_size": 1}, S4.mean((2, 3), keepdim=True)),
    ("AdaptiveMaxPool2d", {"output_size": 1}, S4.amax((2, 3), keepdim=True)),
    ("AvgPool2d", {"kernel_size": [2, 5]}, S4.mean((2, 3), keepdim=True)),
    ("MaxPool2d", {"kernel_size": [2, 5]}, S4.amax((2, 3), keepdim=True)),
    ("ReLU", {}, S4.clamp(min=0)),
    ("Softmax", {"dim": 1}, S4.exp() / S4.exp().sum(1, keepdim=True)),
    ("Dropout", {"p": 0.0}, S4),
    ("Dropout2d", {"p": 1.0}, torch.zeros_like(S4)),
    ("Softplus", {}, (1 + S4.exp()).log()),  # from here on more than MMRazor lists
    ("Flatten", {}, S4.reshape(3, 40)),
    ("Identity", {}, S4),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), LISTED)
def test_modules_by_name(name: str, arguments: dict[str, Any], expected: torch.Tensor) -> None:
    config = {"type": "TorchNNConnector", "module_name": name, "module_args": arguments}
    torch.testing.assert_close(connectors.build(config)(S4), expected)
    torch.testing.assert_close(connectors.build({"type": f"torch.nn.{name}"} | arguments)(S4), expected)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 1}, (3, 6, 2, 5)),
        ("Linear", {"in_features": 5, "out_features": 6}, (3, 4, 2, 6)),
        ("BatchNorm2d", {"num_features": 4}, (3, 4, 2, 5)),
    ],
)
def test_modules_with_parameters(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    connector = TorchNNConnector(name, arguments)
    assert type(connector.func) is getattr(nn, name)
    assert [key for key, _ in connector.named_parameters()] == ["func.weight", "func.bias"]
    assert connector(S4.float()).shape == shape


def test_agrees() -> None:
    connector = TorchNNConnector("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 1}).double()
    weight, bias = connector.func.weight[:, :, 0, 0], connector.func.bias
    assert_agrees(connector, lambda x: torch.einsum("oi,nihw->nohw", weight, x) + bias.reshape(1, -1, 1, 1), S4)


def test_conduct() -> None:
    connector = TorchNNConnector("AvgPool2d", {"kernel_size": 2})
    assert_layout_does_not_count(connector, S4)
    assert_compiles(connector, S4)
    assert_finite_in_half(connector, S4)
    assert_unchanged(TorchNNConnector("ReLU", {"inplace": True}), S4.clone())


def test_the_mode_counts() -> None:
    connector = TorchNNConnector("Dropout", {"p": 1.0})
    assert not connector(S4).any()
    torch.testing.assert_close(connector.eval()(S4), S4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"module_name is None; give the name of a module of torch\.nn\."),
        ({"module_name": "Relu"}, r"module_name: torch\.nn has no module 'Relu'\. Did you mean 'ReLU'"),
        ({"module_name": "Module"}, r"module_name: torch\.nn has no module 'Module'\."),
        ({"module_name": "functional"}, r"module_name: torch\.nn has no module 'functional'\."),
        ({"module_name": "ReLU", "module_args": ["inplace"]}, r"module_args is \['inplace'\]; give a mapping of the"),
        ({"module_name": "AvgPool2d"}, r"module_args: AvgPool2d: .*missing 1 required positional argument"),
        ({"module_name": "Dropout", "module_args": {"p": 2}}, r"module_args: Dropout: dropout probability has to be"),
        ({"module_name": "ReLU", "init_cfg": 1}, r"init_cfg is 1; it can only be None"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^TorchNNConnector: {message}"):
        TorchNNConnector(**options)


def test_wrong_features() -> None:
    with pytest.raises(SpecError, match=r"^TorchNNConnector: feature is a tuple, not a tensor; pick one part"):
        TorchNNConnector("ReLU")((S4, S4))
