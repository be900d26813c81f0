"""Tests of fxkd/connectors/conv_module.py."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd import connectors
from fxkd.connectors import ConvModuleConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import with_known_parameters
from tests.golden import S4, assert_golden, sine


def test_golden() -> None:
    assert_golden(with_known_parameters(ConvModuleConnector(4, 6, norm_cfg={"type": "BN"}))(S4).sum(), 6.2356857233)
    assert_golden(with_known_parameters(ConvModuleConnector(4, 6, act_cfg=None))(S4).abs().sum(), 16.5394661521)


@pytest.mark.parametrize("name", ["ConvModuleConnector", "ConvModuleConncetor"])
def test_found_by_both_spellings(name: str) -> None:
    connector = connectors.build({"type": name, "in_channel": 4, "out_channel": 6})
    assert type(connector) is ConvModuleConnector
    assert getattr(connectors, name) is ConvModuleConnector


def test_default_is_a_biased_pointwise_convolution_with_relu() -> None:
    connector = with_known_parameters(ConvModuleConnector(4, 6))
    conv = connector.conv_module.conv
    expected = torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], S4) + conv.bias.reshape(1, 6, 1, 1)
    torch.testing.assert_close(connector(S4), expected.clamp(min=0))


def test_every_option_of_the_convolution() -> None:
    connector = ConvModuleConnector(
        4, 6, kernel_size=3, stride=2, padding=(1, 2), dilation=(1, 2), groups=2, padding_mode="circular", act_cfg=None
    )
    conv = connector.conv_module.conv
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), dilation=(1, 2), groups=2, padding_mode="circular")
    plain.load_state_dict(conv.state_dict())
    torch.testing.assert_close(connector(S4.float()), plain(S4.float()))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["conv.weight", "conv.bias"]),
        ({"bias": False}, ["conv.weight"]),
        ({"norm_cfg": {"type": "BN"}}, ["conv.weight", "bn.weight", "bn.bias"]),
        ({"norm_cfg": {"type": "BN"}, "bias": True}, ["conv.weight", "conv.bias", "bn.weight", "bn.bias"]),
        ({"norm_cfg": {"type": "BN", "affine": False, "track_running_stats": False}}, ["conv.weight"]),
        ({"norm_cfg": {"type": "GN", "num_groups": 3}}, ["conv.weight", "gn.weight", "gn.bias"]),
        ({"norm_cfg": {"type": "IN", "affine": True}}, ["conv.weight", "in.weight", "in.bias"]),
        ({"norm_cfg": {"type": "LN"}}, ["conv.weight", "ln.weight", "ln.bias"]),
        ({"act_cfg": {"type": "PReLU"}}, ["conv.weight", "conv.bias", "activate.weight"]),
        ({"with_spectral_norm": True}, ["conv.bias", "conv.weight_orig"]),
    ],
)
def test_parameter_names(options: dict[str, Any], names: list[str]) -> None:
    connector = ConvModuleConnector(4, 6, **options)
    assert [name for name, _ in connector.named_parameters()] == [f"conv_module.{name}" for name in names]
    assert connector(S4.float()).shape == (3, 6, 2, 5)


@pytest.mark.parametrize(
    ("order", "norm_channels"),
    [
        (("conv", "norm", "act"), 6),
        (("norm", "conv", "act"), 4),
        (["act", "norm", "conv"], 4),
        (("act", "conv", "norm"), 6),
    ],
)
def test_order(order: tuple[str, ...], norm_channels: int) -> None:
    connector = ConvModuleConnector(4, 6, norm_cfg={"type": "BN"}, order=order)
    parts = dict(connector.conv_module.named_children())
    assert list(parts) == [{"norm": "bn", "act": "activate"}.get(step, step) for step in order]
    assert parts["bn"].num_features == norm_channels
    expected = S4.float()
    for part in parts.values():
        expected = part(expected.clone())
    torch.testing.assert_close(connector(S4.float()), expected)


@pytest.mark.parametrize("order", [("act", "conv", "norm"), ("norm", "act", "conv")])
def test_the_feature_itself_is_never_changed(order: tuple[str, ...]) -> None:
    feature = S4.float()
    ConvModuleConnector(4, 6, order=order)(feature)
    torch.testing.assert_close(feature, S4.float(), rtol=0, atol=0)


def test_in_place_can_be_switched_off() -> None:
    assert ConvModuleConnector(4, 6).conv_module.activate.inplace
    assert not ConvModuleConnector(4, 6, inplace=False).conv_module.activate.inplace


@pytest.mark.parametrize(
    ("mode", "as_in_pad"), [("reflect", "reflect"), ("replicate", "replicate"), ("zero", "constant")]
)
def test_padding_modes(mode: str, as_in_pad: str) -> None:
    connector = ConvModuleConnector(4, 6, kernel_size=3, padding=1, padding_mode=mode, act_cfg=None)
    conv = connector.conv_module.conv
    padded = F.pad(S4.float(), (1, 1, 1, 1), mode=as_in_pad)
    torch.testing.assert_close(connector(S4.float()), F.conv2d(padded, conv.weight, conv.bias))


@pytest.mark.parametrize(
    ("act_cfg", "gain"),
    [({"type": "ReLU"}, 2), (None, 2), ({"type": "LeakyReLU", "negative_slope": 1.0}, 1), ({"type": "LeakyReLU"}, 2)],
)
def test_initial_values(act_cfg: dict[str, Any] | None, gain: float) -> None:
    torch.manual_seed(0)
    connector = ConvModuleConnector(64, 128, kernel_size=3, bias=True, norm_cfg={"type": "BN"}, act_cfg=act_cfg)
    conv, norm = connector.conv_module.conv, connector.conv_module.bn
    assert math.isclose(conv.weight.std().item(), math.sqrt(gain / (128 * 9)), rel_tol=0.02)
    assert not conv.bias.any()
    assert (norm.weight == 1).all()
    assert not norm.bias.any()


def test_spectral_norm() -> None:
    torch.manual_seed(0)
    connector = ConvModuleConnector(4, 6, with_spectral_norm=True, act_cfg=None)
    for _ in range(50):
        connector(S4.float())
    largest = torch.linalg.matrix_norm(connector.conv_module.conv.weight.flatten(1), ord=2)
    torch.testing.assert_close(largest, torch.tensor(1.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "norm", "shape"), [("Conv1d", "BN1d", (3, 4, 10)), ("Conv3d", "BN3d", (3, 4, 2, 5, 1))]
)
def test_other_dimensions(name: str, norm: str, shape: tuple[int, ...]) -> None:
    connector = ConvModuleConnector(4, 6, conv_cfg={"type": name}, norm_cfg={"type": norm})
    assert connector(sine(*shape).float()).shape == (3, 6, *shape[2:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(dtype: torch.dtype) -> None:
    output = ConvModuleConnector(4, 6, norm_cfg={"type": "BN"}).to(dtype)(S4.to(dtype))
    assert output.dtype == dtype
    assert output.isfinite().all()


def test_channels_last() -> None:
    connector = with_known_parameters(ConvModuleConnector(4, 6, norm_cfg={"type": "BN"}))
    torch.testing.assert_close(connector(S4.to(memory_format=torch.channels_last)), connector(S4))


def test_differentiable() -> None:
    connector = with_known_parameters(ConvModuleConnector(4, 6, norm_cfg={"type": "BN"}, act_cfg={"type": "Tanh"}))
    assert torch.autograd.gradcheck(connector, sine(2, 4, 1, 2).requires_grad_())


@pytest.mark.parametrize("spectral", [False, True])
def test_compiles(spectral: bool) -> None:
    def gradient(function: Any, feature: Tensor) -> Tensor:
        feature = feature.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(feature).sum(), feature)
        return gradient

    connector = with_known_parameters(ConvModuleConnector(4, 6, with_spectral_norm=spectral)).eval()
    compiled = torch.compile(connector, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in S4, S4[:2]:
        torch.testing.assert_close(gradient(compiled, batch), gradient(connector, batch))


@pytest.mark.parametrize("order", [("conv", "act"), ("conv", "norm", "norm"), "conv", ("conv", "norm", "relu"), None])
def test_wrong_order(order: Any) -> None:
    with pytest.raises(SpecError, match=r"ConvModuleConnector: order is .*; it must hold 'conv', 'norm' and 'act'"):
        ConvModuleConnector(4, 6, order=order)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match=r"init_cfg is \{'type': 'Normal'\}; it can only be None"):
        ConvModuleConnector(4, 6, init_cfg={"type": "Normal"})
    with pytest.raises(
        SpecError, match=r"ConvModuleConnector: padding_mode is 'reflection'; .* Did you mean 'reflect'"
    ):
        ConvModuleConnector(4, 6, padding_mode="reflection")
    with pytest.raises(SpecError, match=r"bias is 'Auto'; it can be auto, True, False\. Did you mean 'auto'"):
        ConvModuleConnector(4, 6, bias="Auto")


@pytest.mark.parametrize("channels", [0, 4.0, "4", True])
def test_wrong_channels(channels: Any) -> None:
    with pytest.raises(SpecError, match=r"^ConvModuleConnector: in_channel is .*; it must be a whole number above 0\."):
        ConvModuleConnector(channels, 6)
    with pytest.raises(
        SpecError, match=r"^ConvModuleConnector: out_channel is .*; it must be a whole number above 0\."
    ):
        ConvModuleConnector(4, channels)


def test_wrong_layers() -> None:
    with pytest.raises(SpecError, match=r"ConvModuleConnector: norm_cfg: type is 'BN2D'; .* Did you mean 'BN2d'"):
        ConvModuleConnector(4, 6, norm_cfg={"type": "BN2D"})
    with pytest.raises(SpecError, match=r"ConvModuleConnector: act_cfg is 'ReLU'; it must be a mapping"):
        ConvModuleConnector(4, 6, act_cfg="ReLU")
    with pytest.raises(SpecError, match=r"ConvModuleConnector: conv_cfg: type is 'DCN'; it can be Conv, Conv1d"):
        ConvModuleConnector(4, 6, conv_cfg={"type": "DCN"})
