"""A module of torch.nn as a connector."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fxkd.connectors._checks import check_init_cfg, check_tensor, refusal
from fxkd.errors import SpecError
from fxkd.registry import connector, torch_module

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@connector("TorchNNConnector")
class TorchNNConnector(nn.Module):
    """Pass a feature through a module of ``torch.nn``.

    ::

        output = torch.nn.<module_name>(**module_args)(feature)

    ``{"type": "torch.nn.<name>", **arguments}`` says the same shorter, without the level ``func`` in the state dict.

    Args:
        module_name: The name of any module of ``torch.nn``, such as ``"AvgPool2d"``.
        module_args: Its arguments. An ``inplace`` acts on a copy, never on the feature itself.
        init_cfg: Only None; weights can be changed after building.

    The parameters lie under ``func``.

    Shape:
        What the module takes, to what it gives.

    Raises:
        SpecError: There is no such module, or it does not take the arguments.

    One of the connectors of MMRazor, https://github.com/open-mmlab/mmrazor.

    >>> import torch
    >>> pool = TorchNNConnector("AdaptiveAvgPool2d", {"output_size": 1})
    >>> pool(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 64, 1, 1])
    """

    def __init__(
        self, module_name: str | None = None, module_args: Mapping[str, Any] = _NOTHING, init_cfg: None = None
    ) -> None:
        super().__init__()
        check_init_cfg(self, init_cfg)
        if not isinstance(module_name, str):
            raise refusal(self, f"module_name is {module_name!r}; give the name of a module of torch.nn.")
        if not isinstance(module_args, Mapping):
            raise refusal(self, f"module_args is {module_args!r}; give a mapping of the arguments of {module_name}.")
        try:
            self.func = torch_module(module_name)(**module_args)
        except SpecError as error:
            raise refusal(self, f"module_name: {error}") from None
        except (TypeError, ValueError, AssertionError) as error:
            raise refusal(self, f"module_args: {module_name}: {error}") from error
        self.inplace = bool(module_args.get("inplace"))

    def forward(self, feature: Tensor) -> Any:
        check_tensor(self, feature)
        return self.func(feature.clone() if self.inplace else feature)
