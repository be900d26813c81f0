"""The layers that ``conv_cfg``, ``norm_cfg`` and ``act_cfg`` can name: small tables, and what builds from them."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.errors import SpecError, did_you_mean

Config = Mapping[str, Any]  # {"type": name, **arguments}
Value = TypeVar("Value")


class ChannelLayerNorm(nn.LayerNorm):
    """Normalise each position of (N, C, ...) over its channels."""

    def forward(self, input: Tensor) -> Tensor:
        last = input.movedim(1, -1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class Norm(NamedTuple):
    """A normalisation layer: its class, its name in the state dict, and its argument for the number of channels."""

    layer: type[nn.Module]
    name: str = "bn"
    channels: str = "num_features"


CONVS: dict[str, type[nn.Module]] = {
    "Conv": nn.Conv2d,
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv3d": nn.Conv3d,
}

NORMS = {
    "BN": Norm(nn.BatchNorm2d),
    "BN1d": Norm(nn.BatchNorm1d),
    "BN2d": Norm(nn.BatchNorm2d),
    "BN3d": Norm(nn.BatchNorm3d),
    "SyncBN": Norm(nn.SyncBatchNorm),
    "IN": Norm(nn.InstanceNorm2d, "in"),
    "IN1d": Norm(nn.InstanceNorm1d, "in"),
    "IN2d": Norm(nn.InstanceNorm2d, "in"),
    "IN3d": Norm(nn.InstanceNorm3d, "in"),
    "GN": Norm(nn.GroupNorm, "gn", "num_channels"),
    "LN": Norm(ChannelLayerNorm, "ln", "normalized_shape"),
}

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": nn.PReLU,
    "ReLU6": nn.ReLU6,
    "ELU": nn.ELU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Swish": nn.SiLU,
    "HSwish": nn.Hardswish,
    "HSigmoid": nn.Hardsigmoid,
}

NEVER_IN_PLACE = {"PReLU", "Sigmoid", "Tanh", "GELU", "Swish", "HSigmoid"}


def choose(place: str, given: object, table: Mapping[Any, Value]) -> Value:
    """Return what ``table`` holds under ``given``; the error of an unknown one offers what there is."""
    for name, value in table.items():
        if name == given:
            return value
    known = [str(name) for name in table]
    raise SpecError([f"{place} is {given!r}; it can be {', '.join(known)}." + did_you_mean(str(given), known)])


def build_conv(place: str, config: Config | None, **arguments: Any) -> nn.Module:
    """Build the convolution of ``conv_cfg``, by default a ``Conv2d``; its own arguments beat ``arguments``."""
    kind, options = _split(place, config or {"type": "Conv2d"})
    return _construct(place, choose(f"{place}: type", kind, CONVS), arguments | options)


def build_norm(place: str, config: Config, channels: int) -> tuple[str, nn.Module]:
    """Build the normalisation of ``norm_cfg``; also return the name that it has in a state dict."""
    kind, options = _split(place, config)
    norm = choose(f"{place}: type", kind, NORMS)
    trained = options.pop("requires_grad", True)
    layer = _construct(place, norm.layer, {norm.channels: channels} | options)
    return norm.name, layer.requires_grad_(trained)


def build_activation(place: str, config: Config, inplace: bool) -> nn.Module:
    """Build the activation of ``act_cfg``; ``inplace`` is handed to those that are ever done in place."""
    kind, options = _split(place, config)
    layer = choose(f"{place}: type", kind, ACTIVATIONS)
    if kind not in NEVER_IN_PLACE:
        options.setdefault("inplace", inplace)
    return _construct(place, layer, options)


def _split(place: str, config: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(config, Mapping) or "type" not in config:
        raise SpecError([f"{place} is {config!r}; it must be a mapping such as {{'type': name, ...}}, or None."])
    options = dict(config)
    return options.pop("type"), options


def _construct(place: str, layer: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    signature = inspect.signature(layer)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise SpecError([f"{place}: {error}; {layer.__name__} takes {signature}"]) from None
    return layer(**arguments)
