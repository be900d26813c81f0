"""Tests of fxkd/connectors/_layers.py."""

import pytest
import torch
from torch import nn

from fxkd.connectors._layers import ACTIVATIONS, CONVS, NORMS, build_activation, build_conv, build_norm, choose
from fxkd.errors import SpecError
from tests.golden import S4


@pytest.mark.parametrize("name", CONVS)
def test_every_convolution(name: str) -> None:
    conv = build_conv("conv_cfg", {"type": name}, in_channels=4, out_channels=6, kernel_size=1)
    assert type(conv) is CONVS[name]


def test_a_convolution_is_2d_unless_said_and_its_own_arguments_win() -> None:
    assert type(build_conv("conv_cfg", None, in_channels=4, out_channels=6, kernel_size=1)) is nn.Conv2d
    conv = build_conv("conv_cfg", {"type": "Conv2d", "kernel_size": 3}, in_channels=4, out_channels=6, kernel_size=1)
    assert conv.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("name", "layer", "prefix"),
    [
        ("BN", nn.BatchNorm2d, "bn"),
        ("BN1d", nn.BatchNorm1d, "bn"),
        ("BN2d", nn.BatchNorm2d, "bn"),
        ("BN3d", nn.BatchNorm3d, "bn"),
        ("SyncBN", nn.SyncBatchNorm, "bn"),
        ("IN", nn.InstanceNorm2d, "in"),
        ("IN1d", nn.InstanceNorm1d, "in"),
        ("IN2d", nn.InstanceNorm2d, "in"),
        ("IN3d", nn.InstanceNorm3d, "in"),
        ("GN", nn.GroupNorm, "gn"),
        ("LN", nn.LayerNorm, "ln"),
    ],
)
def test_every_normalisation(name: str, layer: type[nn.Module], prefix: str) -> None:
    assert name in NORMS
    groups = {"num_groups": 2} if name == "GN" else {}
    given, norm = build_norm("norm_cfg", {"type": name, "eps": 1e-3} | groups, 4)
    assert given == prefix
    assert isinstance(norm, layer)
    assert norm.eps == 1e-3


def test_layer_norm_normalises_the_channels() -> None:
    _, norm = build_norm("norm_cfg", {"type": "LN"}, 4)
    mean, variance = S4.mean(1, keepdim=True), S4.var(1, correction=0, keepdim=True)
    torch.testing.assert_close(norm.double()(S4), (S4 - mean) / (variance + 1e-5).sqrt())


def test_a_normalisation_can_be_frozen() -> None:
    _, norm = build_norm("norm_cfg", {"type": "BN", "requires_grad": False}, 4)
    assert not any(parameter.requires_grad for parameter in norm.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ReLU", torch.relu),
        ("LeakyReLU", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("PReLU", lambda x: torch.where(x > 0, x, 0.25 * x)),
        ("ReLU6", lambda x: x.clamp(0, 6)),
        ("ELU", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("Sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("Tanh", torch.tanh),
        ("GELU", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("SiLU", lambda x: x / (1 + (-x).exp())),
        ("Swish", lambda x: x / (1 + (-x).exp())),
        ("HSwish", lambda x: x * (x + 3).clamp(0, 6) / 6),
        ("HSigmoid", lambda x: (x + 3).clamp(0, 6) / 6),
    ],
)
@pytest.mark.parametrize("inplace", [True, False])
def test_every_activation(name: str, expected: type[nn.Module], inplace: bool) -> None:
    assert name in ACTIVATIONS
    activation = build_activation("act_cfg", {"type": name}, inplace).double()
    torch.testing.assert_close(activation(5 * S4), expected(5 * S4))


def test_in_place_only_where_it_is_ever_done() -> None:
    assert build_activation("act_cfg", {"type": "ReLU"}, inplace=True).inplace
    assert not build_activation("act_cfg", {"type": "ReLU", "inplace": False}, inplace=True).inplace
    assert not build_activation("act_cfg", {"type": "Swish"}, inplace=True).inplace


def test_arguments_are_passed_on() -> None:
    assert (
        build_activation("act_cfg", {"type": "LeakyReLU", "negative_slope": 0.2}, inplace=False).negative_slope == 0.2
    )


def test_choose() -> None:
    assert choose("bias", True, {"auto": 1, True: 2}) == 2
    with pytest.raises(SpecError, match=r"^bias is \[0\]; it can be auto, True\.$"):
        choose("bias", [0], {"auto": 1, True: 2})


def test_unknown_layers() -> None:
    with pytest.raises(SpecError, match=r"act_cfg: type is 'Relu6'; it can be ReLU, .* Did you mean 'ReLU6'"):
        build_activation("act_cfg", {"type": "Relu6"}, inplace=True)
    with pytest.raises(SpecError, match=r"norm_cfg: type is 'BatchNorm2d'; it can be BN, BN1d"):
        build_norm("norm_cfg", {"type": "BatchNorm2d"}, 4)
    with pytest.raises(SpecError, match=r"conv_cfg: type is 'Conv2D'; .* Did you mean 'Conv2d'"):
        build_conv("conv_cfg", {"type": "Conv2D"}, in_channels=4)


@pytest.mark.parametrize("config", ["ReLU", {"negative_slope": 0.1}])
def test_a_layer_needs_a_type(config: object) -> None:
    with pytest.raises(
        SpecError, match=r"act_cfg is .*; it must be a mapping such as \{'type': name, \.\.\.\}, or None"
    ):
        build_activation("act_cfg", config, inplace=True)


def test_wrong_arguments() -> None:
    with pytest.raises(
        SpecError, match=r"norm_cfg: missing a required argument: 'num_groups'; GroupNorm takes \(num_groups"
    ):
        build_norm("norm_cfg", {"type": "GN"}, 4)
    with pytest.raises(SpecError, match=r"act_cfg: got an unexpected keyword argument 'slope'; LeakyReLU takes"):
        build_activation("act_cfg", {"type": "LeakyReLU", "slope": 0.1}, inplace=True)
