"""What runs on values alone as one operator, so that ``torch.compile`` takes the graph around it whole.

Outside of a compiled region the function or the module is called as it is. Inside, one operator calls it at every step;
what it gives there (how many tensors, of which types, how their sizes follow from what it is given) is known from the
calls that were seen when the model was captured, and is checked at every step.
"""

import operator
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fxkd.capture import whole_operator as whole_operator  # registers the operator
from fxkd.capture.forms import Parts, dims, form_of_call, result_of
from fxkd.capture.structure import tensors as tensors_in
from fxkd.capture.whole_calls import Whole, keep_objects, note, wholes
from fxkd.capture.whole_sites import promised_at, site_of
from fxkd.errors import CaptureError

names: dict[int, str] = {}
numbers = count()


@cache
def as_whole(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Give what stands for ``function`` in a graph, the same for the same function."""
    name = f"{path}#{next(numbers)}"
    wholes[name] = Whole(path, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _in_compiled(name, args, kwargs)
        keep_objects((args, kwargs))
        value = function(*args, **kwargs)
        _refuse_fakes(path, value, (args, kwargs))
        return value

    call.__name__ = call.__qualname__ = getattr(function, "__name__", "call").replace(".", "_")
    call.__module__, call.whole = __name__, wholes[name]  # type: ignore[attr-defined]
    return call


def call_on_values(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Stand in a graph for the call of a module that does not run without values."""
    if torch.compiler.is_compiling():
        return _in_compiled(_name_of(id(module)), (module, *args), kwargs)
    if id(module) in names:
        return module(*args, **kwargs)
    given = tensors_in((args, kwargs))
    versions = [tensor._version for tensor in given]
    value = module(*args, **kwargs)
    changed = [tensor for tensor, version in zip(given, versions, strict=True) if tensor._version != version]
    note_module(module, type(module).__name__, (args, kwargs), value, changed)
    return value


def note_module(module: nn.Module, path: str, given: tuple[Any, Any], value: Any, changed: Sequence[Tensor]) -> None:
    """Keep what one call of such a module was given, gave and wrote to."""
    if id(module) not in names:
        names[id(module)] = f"{path}#{next(numbers)}"
        wholes[names[id(module)]] = Whole(path, operator.call)
        weakref.finalize(module, _forget, id(module))
    args, kwargs = given
    note(wholes[names[id(module)]], (module, *args), kwargs, value, changed)


def _forget(identity: int) -> None:
    wholes.pop(names.pop(identity))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _name_of(identity: int) -> str:
    """Find a module that was called outside of a compiled region."""
    if identity not in names:
        raise CaptureError(
            "a module that runs on values alone was not there when the models were captured: call the distiller once "
            "outside of torch.compile"
        )
    return names[identity]


def _refuse_fakes(path: str, value: Any, given: Any) -> None:
    """Refuse what was made of tensors without values: those of an object that a forward made while it was recorded."""
    if any(isinstance(tensor, FakeTensor) for tensor in tensors_in(value)):
        if any(isinstance(tensor, FakeTensor) for tensor in tensors_in(given)):
            return
        raise CaptureError(
            f"{path!r} works on tensors of an object that the forward makes anew at each call, so that it cannot be "
            "one node: name the function or method that makes the object, or use backend='eager'"
        )


def whole_of(function: Callable[..., Any], path: str) -> Whole:
    """Give what is known of a function."""
    found: Whole = as_whole(function, path).whole  # type: ignore[attr-defined]
    return found


def _in_compiled(name: str, args: Any, kwargs: Any) -> Any:
    parts = Parts([], [], [], [])
    form = form_of_call((args, kwargs), parts)
    is_on = torch.is_grad_enabled()
    asking = tuple([index for index, tensor in enumerate(parts.tensors) if is_on and tensor.requires_grad])
    key = site_of(name, form, tuple(parts.objects), asking)
    result, sizes, changed, gradients = promised_at(key)
    known = dims(parts)
    promised = [_size(how, known) for tensor in sizes for how in tensor]
    made = torch.ops.fxkd.whole(key, parts.tensors, parts.numbers, parts.reals, promised)
    for index, value in zip(changed, made[len(sizes) : len(sizes) + len(changed)], strict=True):
        parts.tensors[index].copy_(value)
    given = [value if flows else value.detach() for value, flows in zip(made, gradients, strict=False)]
    return result_of(result, parts.tensors, given)


def _size(how: tuple[str, int], known: list[Any]) -> Any:
    if how[0] == "same":
        return known[how[1]]
    return how[1] if how[0] == "constant" else -1 - how[1]
