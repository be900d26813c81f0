"""A model named by a text: of timm, of torchvision, or what a function of yours returns."""

import importlib
import sys
from typing import Any

import torch
from torch import nn

from fxkd.errors import SpecError, did_you_mean

FORMS = "'timm:resnet18', 'torchvision:resnet18' or 'package.module:function'"
MISSING = {"timm": "pip install 'fxkd[vision]'", "torchvision": "pip install torchvision"}


def named_model(name: str, device: str | None = None) -> nn.Module:
    """Build the model that ``name`` means, without weights of its family's.

    Args:
        name: ``timm:<model>``, ``torchvision:<model>``, or ``package.module:function`` (called without arguments).
        device: Where its parameters are made; ``"meta"`` costs neither time nor memory.

    Raises:
        SpecError: There is no such model, or the library is not installed.

    >>> named_model("torch.nn:Identity")
    Identity()
    """
    family, colon, rest = name.partition(":")
    if not (family and colon and rest):
        raise SpecError([f"{name!r} names no model: give {FORMS}"])
    if family == "timm":
        module, build = _library("timm", name), "create_model"
        known = module.list_models()
    elif family == "torchvision":
        module, build = _library("torchvision.models", name), "get_model"
        known = module.list_models()
    else:
        return _called(family, rest, name)
    if rest.partition(".")[0] not in known:
        raise SpecError([f"{name!r}: {family} has no model {rest!r}." + did_you_mean(rest, known)])
    with torch.device(device or "cpu"):
        model: nn.Module = getattr(module, build)(rest)
    return model


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise SpecError([f"{name!r} needs {library} ({error}): {MISSING[library]}"]) from error


def _called(module: str, function: str, name: str) -> nn.Module:
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module of the folder that the command runs in
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
        model = found()
    except Exception as error:
        raise SpecError([f"{name!r} gives no model: {type(error).__name__}: {error}"]) from error
    if not isinstance(model, nn.Module):
        raise SpecError([f"{name!r} gives a {type(model).__name__}, not an nn.Module"])
    return model
