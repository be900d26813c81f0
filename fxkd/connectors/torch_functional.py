"""A function of torch.nn.functional as a connector."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fxkd.connectors._checks import check_init_cfg, check_tensor, refusal
from fxkd.errors import did_you_mean
from fxkd.registry import connector

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_HOMES = ("torch", "torch._C._nn", "torch.nn.functional")  # the rest of what lies there is for torch's own use


def functions() -> dict[str, Callable[..., Any]]:
    """Give the functions of ``torch.nn.functional`` by name, without those that write to their input."""
    found = {name: getattr(F, name) for name in dir(F) if name[0].islower() and not name.endswith("_")}
    return {
        name: function
        for name, function in found.items()
        if callable(function) and not inspect.isclass(function) and getattr(function, "__module__", "") in _HOMES
    }


@connector("TorchFunctionalConnector")
class TorchFunctionalConnector(nn.Module):
    """Pass a feature through a function of ``torch.nn.functional``.

    ::

        output = torch.nn.functional.<function_name>(feature, **func_args)

    ``dropout`` and its kin drop in eval mode too, because their argument ``training`` is True unless ``func_args`` says
    otherwise; ``{"type": "torch.nn.Dropout", "p": 0.5}`` follows the mode.

    Args:
        function_name: The name of any function of ``torch.nn.functional`` that takes one tensor, such as
            ``"interpolate"``.
        func_args: Its other arguments. An ``inplace`` acts on a copy, never on the feature itself.
        init_cfg: Only None; there are no weights.

    Shape:
        What the function takes, to what it gives.

    Raises:
        SpecError: There is no such function, or it does not take the arguments.

    One of the connectors of MMRazor, https://github.com/open-mmlab/mmrazor.

    >>> import torch
    >>> smaller = TorchFunctionalConnector("interpolate", {"size": [4, 4], "mode": "bilinear"})
    >>> smaller(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self, function_name: str | None = None, func_args: Mapping[str, Any] = _NOTHING, init_cfg: None = None
    ) -> None:
        super().__init__()
        check_init_cfg(self, init_cfg)
        if not isinstance(function_name, str):
            raise refusal(self, f"function_name is {function_name!r}; give the name of one of torch.nn.functional.")
        known = functions()
        if function_name not in known:
            near = did_you_mean(function_name, known)
            raise refusal(self, f"function_name is {function_name!r}; torch.nn.functional has no such function.{near}")
        if not isinstance(func_args, Mapping):
            raise refusal(self, f"func_args is {func_args!r}; give a mapping of the arguments of {function_name}.")
        self.function_name = function_name
        self.func_args = dict(func_args)
        self._check_arguments(known[function_name])

    def _check_arguments(self, function: Callable[..., Any]) -> None:
        """Refuse arguments that the function does not take beside one tensor, as far as it says what it takes."""
        try:
            signature = inspect.signature(function)
        except ValueError:
            return
        try:
            signature.bind(None, **self.func_args)
        except TypeError as error:
            problem = f"func_args: {error}; beside the feature {self.function_name} takes {signature}"
            raise refusal(self, problem) from None

    def forward(self, feature: Tensor) -> Any:
        check_tensor(self, feature)
        value = feature.clone() if self.func_args.get("inplace") else feature
        return getattr(F, self.function_name)(value, **self.func_args)

    def extra_repr(self) -> str:
        return ", ".join([self.function_name, *(f"{name}={value!r}" for name, value in self.func_args.items())])
