"""Change the channels of a feature map: convolution, normalisation, activation."""

from collections import OrderedDict
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fxkd.connectors._checks import check_counts, check_init_cfg
from fxkd.connectors._layers import Config, build_activation, build_conv, build_norm, choose
from fxkd.errors import SpecError
from fxkd.registry import connector

_RELU: Config = MappingProxyType({"type": "ReLU"})
_STEPS = ("conv", "norm", "act")
_PADDING_MODES = {name: name for name in ("zeros", "circular", "reflect", "replicate")} | {"zero": "zeros"}


@connector("ConvModuleConnector", "ConvModuleConncetor")
class ConvModuleConnector(nn.Module):
    """Pass a feature map through a convolution, a normalisation and an activation.

    ::

        output = act(norm(conv(feature)))

    By default a 1x1 convolution with ReLU; features from before an activation want ``act_cfg=None``. The misspelling
    ``ConvModuleConncetor``, found in older configurations, names this class too.

    Args:
        in_channel: Channels of the feature.
        out_channel: Channels of the output.
        kernel_size: As in ``nn.Conv2d``; so are ``stride``, ``padding``, ``dilation`` and ``groups``.
        bias: Whether the convolution has a bias; ``"auto"``: only without a normalisation.
        conv_cfg: ``{"type": name, **arguments}``: Conv1d, Conv2d (the default) or Conv3d.
        norm_cfg: BN, BN1d, BN2d, BN3d, SyncBN, IN, IN1d, IN2d, IN3d, GN (needs ``num_groups``) or LN (over the
            channels). ``requires_grad: False`` freezes it. None: no normalisation.
        act_cfg: ReLU, LeakyReLU, PReLU, ReLU6, ELU, Sigmoid, Tanh, GELU, SiLU (or Swish), HSwish or HSigmoid. None: no
            activation.
        inplace: Do the activation in place where it can be; never on the feature itself.
        with_spectral_norm: Divide the convolution's weight by its largest singular value.
        padding_mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.
        order: In which order the three come.
        init_cfg: Only None; weights can be changed after building.

    At the start the convolution's weight is Kaiming normal (fan out) and its bias 0; a normalisation's are 1 and 0. The
    parameters lie under ``conv_module.conv``, ``conv_module.bn`` (``in``, ``gn``, ``ln``) and ``conv_module.activate``.

    Shape:
        (N, in_channel, H, W) to (N, out_channel, H', W'); other numbers of axes with another ``conv_cfg``.

    Raises:
        SpecError: A layer is unknown or gets a wrong argument, or an option has a value it cannot have.

    A convolution on the student's hint layer goes back to "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550.

    >>> import torch
    >>> connector = ConvModuleConnector(64, 256, norm_cfg={"type": "BN"})
    >>> connector(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 256, 8, 8])
    >>> [name for name, _ in connector.named_parameters()]
    ['conv_module.conv.weight', 'conv_module.bn.weight', 'conv_module.bn.bias']
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        kernel_size: int | tuple[int, ...] = 1,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = None,
        act_cfg: Config | None = _RELU,
        inplace: bool = True,
        with_spectral_norm: bool = False,
        padding_mode: str = "zeros",
        order: Sequence[str] = _STEPS,
        init_cfg: None = None,
    ) -> None:
        super().__init__()
        check_counts(self, in_channel=in_channel, out_channel=out_channel)
        check_init_cfg(self, init_cfg)
        _check_order(order)
        conv = build_conv(
            "ConvModuleConnector: conv_cfg",
            conv_cfg,
            in_channels=in_channel,
            out_channels=out_channel,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=choose("ConvModuleConnector: bias", bias, {"auto": norm_cfg is None, True: True, False: False}),
            padding_mode=choose("ConvModuleConnector: padding_mode", padding_mode, _PADDING_MODES),
        )
        layers = {"conv": ("conv", conv)}
        if norm_cfg is not None:
            channels = in_channel if order.index("norm") < order.index("conv") else out_channel
            layers["norm"] = build_norm("ConvModuleConnector: norm_cfg", norm_cfg, channels)
        if act_cfg is not None:
            # With no layer before it the activation would write into the model's own feature.
            follows = any(step in layers for step in order[: order.index("act")])
            activation = build_activation("ConvModuleConnector: act_cfg", act_cfg, inplace and follows)
            layers["act"] = ("activate", activation)
        _initialise(conv, act_cfg or {})
        if with_spectral_norm:
            nn.utils.spectral_norm(conv)
        self.conv_module = nn.Sequential(OrderedDict(layers[step] for step in order if step in layers))

    def forward(self, feature: Tensor) -> Tensor:
        output: Tensor = self.conv_module(feature)
        return output


def _check_order(order: object) -> None:
    if not isinstance(order, Sequence) or len(order) != len(_STEPS) or set(order) != set(_STEPS):
        raise SpecError([f"ConvModuleConnector: order is {order!r}; it must hold 'conv', 'norm' and 'act', once each."])


def _initialise(conv: Any, activation: Config) -> None:
    """Fill ``conv`` with Kaiming normal weights for the activation that follows, and a bias of 0."""
    slope = activation.get("negative_slope", 0.01) if activation.get("type") == "LeakyReLU" else 0.0
    nn.init.kaiming_normal_(conv.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
