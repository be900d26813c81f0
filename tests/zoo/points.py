"""Which points of a model are recorded: chosen by rule, so that nobody chooses those that work."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import fxkd
from tests.support.oracle import recording, seed_everything
from tests.zoo.model import Call

PLACES = (0.1, 0.3, 0.8)  # of the order in which the modules are called
NO_VALUE = (".empty", ".empty_like")  # what they give is whatever lay in memory
Recorders = dict[str, dict[str, str]]


def chosen(model: nn.Module, calls: Iterable[Call]) -> Recorders:
    """Choose three modules, and one function and one method where the model's code calls any.

    The function and the method are those in the middle of what the model calls, or the next ones that it calls as often
    on each of its inputs and that give tensors of real numbers.
    """
    first, *others = calls
    recorders = {f"module_{place}": recorder("ModuleOutputs", path) for place, path in modules(model, first).items()}
    table = fxkd.points(model, fxkd.Inputs(*first))
    for kind in ("FunctionOutputs", "MethodOutputs"):
        paths = list(dict.fromkeys(row.path for row in table if row.kind == kind and not row.path.endswith(NO_VALUE)))
        middle = len(paths) // 2
        for path in [*paths[middle:], *paths[:middle]]:
            if is_alike(model, recorder(kind, path), (first, *others)):
                recorders[kind.removesuffix("Outputs").lower()] = recorder(kind, path)
                break
    return recorders


def is_alike(model: nn.Module, point: dict[str, str], calls: tuple[Call, ...]) -> bool:
    """Tell whether a function or method is called as often on each input and gives real numbers to learn from."""
    values = [values_of(model, point, call) for call in (*calls, *calls)]  # twice: it may keep what it once made
    given = [part for value in values[0] for part in (value if isinstance(value, (tuple, list)) else [value])]
    gives_values = bool(given) and all(isinstance(part, Tensor) and part.is_floating_point() for part in given)
    return gives_values and len({len(found) for found in values}) == 1


def values_of(model: nn.Module, point: dict[str, str], call: Call) -> list[Any]:
    """Give what a function or method gives in one run, call by call."""
    with torch.no_grad(), kept(model), recording(model, {"point": point}) as records:
        run(model, copy.deepcopy(call))
    return list(records["point"])


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Put back what the model holds."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seed_everything(0)
    try:
        yield
    finally:
        model.load_state_dict(state)


def recorder(kind: str, source: str) -> dict[str, str]:
    """Write a recorder as a spec does."""
    return {"type": kind, "source": source}


def modules(model: nn.Module, call: Call) -> dict[float, str]:
    """Give the modules at certain places of the order in which they are first called, the model itself left out."""
    order = list(dict.fromkeys(called(model, call)))
    return {place: order[int(place * len(order))] for place in PLACES} if order else {}


def called(model: nn.Module, call: Call) -> Iterable[str]:
    """List the paths of the modules that give anything with a tensor, as they are called on values."""
    paths: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args, path=path: paths.append(path))
        for path, module in model.named_modules()
        if path and not isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
    ]
    try:
        with torch.no_grad(), kept(model):
            run(model, copy.deepcopy(call))
    finally:
        for handle in handles:
            handle.remove()
    return paths


def run(model: nn.Module, call: Call) -> Any:
    """Call a model."""
    args, kwargs = call
    return model(*args, **kwargs)
