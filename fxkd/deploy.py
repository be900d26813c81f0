"""The student that leaves the house: a clean copy of the trained module, compiled, compared with the original."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.capture import Inputs
from fxkd.capture.lines import raising_line
from fxkd.capture.preserve import preserved
from fxkd.capture.structure import tensors
from fxkd.distiller import Distiller
from fxkd.errors import DeployError
from fxkd.parity import REMEDY, compare

SUFFIXES = (".pt",)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A student ready for use.

    Args:
        student: A copy of the student, in eval mode and without gradients.
        compiled: The same through ``torch.compile``; None if that was not asked for.
        difference: The largest absolute difference between any output of the original and what is deployed.
        path: The file that holds the state dict; None if none was asked for.
    """

    student: nn.Module
    compiled: Callable[..., Any] | None
    difference: float
    path: Path | None


def deploy(
    distiller: Distiller | nn.Module,
    example_inputs: Any,
    *,
    path: str | Path | None = None,
    compile: bool | Mapping[str, Any] = True,
    tolerance: float = 1e-4,
) -> Deployment:
    """Take the student out: a clean copy, compiled, that gives what the original gives; the original is not touched.

    Args:
        distiller: A distiller, or the student itself.
        example_inputs: Arguments on which both are compared: a tuple of positionals, a dict of keywords,
            ``fxkd.Inputs`` or one tensor. What only the losses read (the spec's ``inputs``) is left out.
        path: Where to write the state dict, for ``torch.load(path, weights_only=True)``.
        compile: Whether to compile the copy, or options of ``torch.compile``.
        tolerance: How far an output may be off, as a share of its own largest absolute value.

    Raises:
        DeployError: The copy is not clean, cannot be compiled or written, or gives something else; says what to do.

    >>> deployment = deploy(nn.Linear(4, 2), torch.randn(3, 4), compile=False)
    parity: largest difference from the original 0.0e+00 (1 tensor, not compiled)
    >>> deployment.student.training, deployment.difference
    (False, 0.0)
    """
    options, target = _options(compile), _target(path)
    student, inputs = _student(distiller), _inputs(distiller, example_inputs)
    clean = _clean_copy(student)
    expected = _run_original(student, inputs)
    compiled, given = _run_deployed(clean, options, inputs)
    difference = compare(expected, given, tolerance)
    if target is not None:
        _write(clean, target)
    _tell(difference, len(expected), options, target)
    return Deployment(student=clean, compiled=compiled, difference=difference, path=target)


# What is asked for


def _options(given: bool | Mapping[str, Any]) -> dict[str, Any] | None:
    """Read ``compile``: options of ``torch.compile``, or None."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, bool):
        return {} if given else None
    raise DeployError(f"compile: is {given!r}; give True, False or a dict of torch.compile's options")


def _target(path: str | Path | None) -> Path | None:
    if path is None or Path(path).suffix in SUFFIXES:
        return None if path is None else Path(path)
    raise DeployError(f"path: cannot write {str(path)!r}; there is '.pt' (a state dict): give a name that ends in it")


def _student(given: Distiller | nn.Module) -> nn.Module:
    if not isinstance(given, nn.Module):
        raise DeployError(f"a {type(given).__name__} cannot be deployed: give a distiller or the student, an nn.Module")
    student = given.student if isinstance(given, Distiller) else given
    return getattr(student, "_orig_mod", student)  # what torch.compile was given


def _inputs(given: Distiller | nn.Module, example_inputs: Any) -> Inputs:
    inputs, own = Inputs.of(example_inputs), given.spec.inputs if isinstance(given, Distiller) else ()
    return Inputs(inputs.args, {name: value for name, value in inputs.kwargs.items() if name not in own})


# The copy


def _clean_copy(student: nn.Module) -> nn.Module:
    try:
        clean = copy.deepcopy(student)
    except Exception as error:
        raise DeployError(
            f"the student cannot be copied: {type(error).__name__}: {error}. A tensor with a history, an open file or "
            "a lock that a module keeps as an attribute does this: set it to None before"
        ) from error
    if traces := list(_traces(clean)):
        raise DeployError(
            f"the student still holds parts of fxkd: {', '.join(traces)}; leave the recorders (their with block), "
            "or deploy the module inside"
        )
    clean.zero_grad(set_to_none=True)
    return clean.eval().requires_grad_(False)


def _traces(model: nn.Module) -> Iterator[str]:
    """Name the modules, hooks and replaced methods that fxkd has put into a model."""
    for path, module in model.named_modules():
        hooks = [hook for name in HOOKS for hook in getattr(module, name).values()]
        held = [type(module), *hooks, *(value for value in vars(module).values() if callable(value))]
        if any(str(getattr(value, "__module__", "")).partition(".")[0] == "fxkd" for value in held):
            yield repr(path)


# Parity


def _run(call: Callable[..., Any], model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Run ``model`` by ``call`` in eval mode, on copies of the inputs; it and the random generators are put back."""
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (inputs.args, inputs.kwargs))
    with preserved(model, values=True), torch.no_grad():
        model.eval()
        return [tensor.detach().clone() for tensor in tensors(call(*args, **kwargs))]


def _run_original(student: nn.Module, inputs: Inputs) -> list[Tensor]:
    try:
        return _run(student, student, inputs)
    except Exception as error:
        where = f"{type(error).__name__} at {raising_line(error)}"
        raise DeployError(f"the student does not run on example_inputs in eval mode: {where}: {error}") from error


def _run_deployed(
    clean: nn.Module, options: dict[str, Any] | None, inputs: Inputs
) -> tuple[Callable[..., Any] | None, list[Tensor]]:
    if options is None:
        return None, _run(clean, clean, inputs)
    try:
        compiled = torch.compile(clean, **options)
        return compiled, _run(compiled, clean, inputs)
    except Exception as error:
        if "C++ compiler" in str(error):
            what = "torch.compile needs a C++ compiler such as g++ and finds none: install one"
            raise DeployError(f"{what}, or {REMEDY}") from error
        what = f"torch.compile failed with {type(error).__name__}: {_first_line(error)}"
        raise DeployError(f"{what}; {REMEDY}") from error


# What is left behind


def _write(student: nn.Module, path: Path) -> None:
    state = student.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    try:
        torch.load(path, weights_only=True)
    except Exception as error:
        path.unlink()
        raise DeployError(
            f"path: the state dict holds more than tensors and plain values, so torch.load(..., weights_only=True) "
            f"would refuse it: {_first_line(error)}. Look at get_extra_state of its modules"
        ) from error


def _tell(difference: float, count: int, options: dict[str, Any] | None, path: Path | None) -> None:
    how = "not compiled" if options is None else f"compiled with {options.get('backend', 'inductor')}"
    outputs = "1 tensor" if count == 1 else f"{count} tensors"
    written = f"; written to {path}" if path else ""
    print(f"parity: largest difference from the original {difference:.1e} ({outputs}, {how}){written}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")
