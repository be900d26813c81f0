"""Why a model does not run: a call that it does not take, inputs on which it fails, or what a capture cannot do."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.capture.inputs import Inputs
from fxkd.capture.lines import raising_line
from fxkd.capture.preserve import preserved
from fxkd.errors import CaptureError, FxkdError, did_you_mean

WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)
SCRIPTED = torch.jit.ScriptModule
NUMPY = "numpy"  # known by its name, as it may not be installed


class DoesNotRun(CaptureError):
    """A model failed as it was captured; it may fail without capture too."""


@contextmanager
def blamed(name: str, model: nn.Module, inputs: Inputs, *, on_values: bool = True) -> Iterator[None]:
    """Refuse a call that ``model`` does not take; if it fails inside, run it on values to see whether it is the inputs.

    Args:
        name: What the model is called in messages.
        model: What is run inside.
        inputs: The call.
        on_values: False never runs it; what is raised inside goes on.

    Raises:
        CaptureError: Says what the model takes, or where and why it fails on these very inputs.
    """
    refuse_wrapped(name, model)
    refuse_call(name, model, inputs)
    try:
        yield
    except Exception as error:
        if not on_values or (isinstance(error, FxkdError) and not isinstance(error, DoesNotRun)):
            raise
        own = _failure_on_values(model, inputs)
        if own is None:
            raise
        raise CaptureError(
            f"{name}: does not run on these inputs ({_described(inputs)}): "
            f"{type(own).__name__} at {raising_line(own)}: {_first_line(own)}"
        ) from own


def refuse_wrapped(name: str, model: nn.Module) -> None:
    """Refuse a wrapper for several devices, and compiled TorchScript: their forwards do more than can be seen.

    Raises:
        CaptureError: Says what to wrap.
    """
    wrapped = [path for path, module in model.named_modules() if isinstance(module, WRAPPERS)]
    if wrapped:
        kind = type(model.get_submodule(wrapped[0])).__name__
        where = f"in {kind} at {wrapped[0]!r}" if wrapped[0] else f"a {kind}"
        raise CaptureError(
            f"{name}: is {where}, which does its own work around the forward; prepare the model inside (its '.module') "
            "and wrap the distiller, or use backend='eager'"
        )
    scripted = [path for path, module in model.named_modules() if isinstance(module, SCRIPTED)]
    if scripted:
        raise CaptureError(
            f"{name}: {scripted[0]!r} is TorchScript, which runs code that is not Python's on tensors of its own: give "
            "the module that it was made from, or use backend='eager'"
        )


def refuse_call(name: str, model: nn.Module, inputs: Inputs) -> None:
    """Refuse arguments that the ``forward`` of a model cannot be called with.

    Raises:
        CaptureError: Says which argument is wrong and which there are.
    """
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
        strange = [] if takes_any else [key for key in inputs.kwargs if key not in signature.parameters]
        what = f"no argument is called {strange[0]!r}" if strange else str(error)
        hint = did_you_mean(strange[0], signature.parameters) if strange else ""
        raise CaptureError(
            f"{name}: cannot be called so: {what}; {type(model).__name__} takes {signature}.{hint}"
        ) from None


def _failure_on_values(model: nn.Module, inputs: Inputs) -> Exception | None:
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    try:
        with preserved(model, values=True), torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the model's own)
        return error
    return None


def _first_line(error: Exception) -> str:
    """Give the first line of a message: torch goes on with every signature of an operator."""
    return str(error).partition("\n")[0]


def _described(inputs: Inputs) -> str:
    """List what was given, with a remedy for what is no tensor and could be one."""
    found = pytree.tree_flatten_with_path((inputs.args, inputs.kwargs))[0]
    return ", ".join(f"{_place(path)}: {_form(value)}" for path, value in found) or "nothing"


def _place(path: tuple[Any, ...]) -> str:
    return ("args" if path[0].idx == 0 else "kwargs") + pytree.keystr(path[1:])


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if type(value).__module__ == NUMPY:
        return f"a numpy {type(value).__name__} (torch.as_tensor makes a tensor of it)"
    return repr(value) if value is None or isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
