"""Run a captured graph beside the models themselves and compare: losses, output, gradients, buffers, random states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.capture import Inputs
from fxkd.capture.draws import drawn_state, seed_everything
from fxkd.capture.inputs import with_rows
from fxkd.capture.preserve import preserved
from fxkd.capture.structure import tensors
from fxkd.closeness import apart, largest
from fxkd.errors import CaptureError, DifferenceError

Step = Callable[[Inputs], Mapping[str, Any]]
OWN = ("student", "connectors", "losses")  # small enough to be copied whole


class ModelsError(CaptureError):
    """The models themselves do not run on the inputs."""


class DrawsError(DifferenceError):
    """A graph gives something else, and draws more or fewer random numbers."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one step gave.

    Args:
        values: Losses, output, gradients and buffers by a name that a message can use.
        drawn: Whether Python's, numpy's and torch's generators went on, and how far.
    """

    values: dict[str, Tensor]
    drawn: tuple[Any, ...]


def verify(
    graph: Step,
    models: Step,
    parts: Mapping[str, nn.Module],
    inputs: Sequence[Inputs],
    *,
    backward: bool,
    first_seed: int = 0,
) -> None:
    """Compare a step of the graph with a step of the models under hooks; everything is put back.

    Args:
        graph: Runs the captured graph.
        models: Runs the models themselves.
        parts: ``student``, ``connectors``, ``losses`` and the teachers by name.
        inputs: The calls to compare, each from another seed.
        backward: Whether gradients are compared too.
        first_seed: The seed of the first call; each has the next.

    Raises:
        DifferenceError: They differ; says in what and by how much.
        DrawsError: They differ, and so does how many random numbers they drew.
        GuardError: The graph is not for these inputs.
        ModelsError: The models do not run on these inputs.
    """
    for index, call in enumerate(inputs):
        seed = first_seed + index
        try:
            expected = _run(models, call, parts, seed, backward)
        except Exception as error:
            raise ModelsError(f"the models do not run on these inputs: {type(error).__name__}: {error}") from error
        given = _run(graph, call, parts, seed, backward)
        difference = compare(expected.values, given.values)
        if difference and expected.drawn != given.drawn:
            raise DrawsError(difference)
        if difference:
            raise DifferenceError(
                f"the graph does not do what the models do: {difference} (inputs {index + 1} of {len(inputs)}, from "
                "the same random state). Something in a forward escapes the capture: use backend='eager', and please "
                "report the model; verify=False goes on all the same"
            )


def other_rows(inputs: Inputs) -> Inputs:
    """Give the rows of the inputs in reverse.

    >>> other_rows(Inputs((torch.tensor([1, 2]),))).args[0].tolist()
    [2, 1]
    """
    return with_rows(inputs, lambda tensor: tensor.flip(0))


def more_rows(inputs: Inputs) -> Inputs:
    """Give the rows of the inputs in reverse, one of them twice; values are never invented.

    >>> more_rows(Inputs((torch.tensor([1, 2]),))).args[0].tolist()
    [2, 1, 2]
    """
    return with_rows(inputs, lambda tensor: torch.cat((tensor.flip(0), tensor[-1:])))


def _run(step: Step, call: Inputs, parts: Mapping[str, nn.Module], seed: int, backward: bool) -> Run:
    copied = Inputs(*pytree.tree_map_only(Tensor, _copied, (call.args, call.kwargs)))
    with ExitStack() as stack:
        for name, part in parts.items():
            stack.enter_context(preserved(part, values=name in OWN))
            stack.enter_context(_buffers_put_back(part))
        seed_everything(seed)
        result = step(copied)
        drawn = (*drawn_state(), torch.get_rng_state().tolist(), [state.tolist() for state in _cuda_states()])
        values = {f"{key}{pytree.keystr(path)}": value.detach().clone() for key, path, value in _outputs(result)}
        values |= _gradients(result, parts, copied) if backward else {}
        values |= {
            f"the buffer {name}.{key}": buffer.detach().clone()
            for name, part in parts.items()
            for key, buffer in part.named_buffers()
            if name == "student" or _trains(part)
        }
    return Run(values, drawn)


def _trains(part: nn.Module) -> bool:
    """Tell whether the state of a part must go on as without fxkd; of a frozen teacher, what is not needed may not."""
    return any(parameter.requires_grad for parameter in part.parameters())


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []


@contextmanager
def _buffers_put_back(part: nn.Module) -> Iterator[None]:
    copies = [(tensor, tensor.detach().clone()) for tensor in part.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in copies:
                tensor.copy_(value)


def _outputs(result: Mapping[str, Any]) -> Iterator[tuple[str, Any, Tensor]]:
    for key in ("losses", "student_loss", "loss", "output"):
        for path, value in pytree.tree_flatten_with_path(result[key])[0]:
            if isinstance(value, Tensor):
                yield key, path, value


def _gradients(result: Mapping[str, Any], parts: Mapping[str, nn.Module], call: Inputs) -> dict[str, Tensor]:
    """Give the gradients of the loss, or of the sum of the output where there is none; those of inputs if asked for."""
    total = result["loss"]
    if total is None:
        found = [t for t in tensors(result["output"]) if t.requires_grad and t.is_floating_point()]
        total = sum((t.float().sum() for t in found), torch.zeros(()))
    wanted: dict[str, Tensor] = {
        f"the gradient of {name}.{key}": parameter
        for name, part in parts.items()
        for key, parameter in part.named_parameters()
        if parameter.requires_grad
    }
    given = [tensor for tensor in tensors((call.args, call.kwargs)) if tensor.requires_grad]
    wanted |= {f"the gradient of input {index}": tensor for index, tensor in enumerate(given)}
    if not isinstance(total, Tensor) or not total.requires_grad or not wanted:
        return {}
    gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    named: list[tuple[str, Tensor | None]] = list(zip(wanted, gradients, strict=True))
    return {name: gradient for name, gradient in named if gradient is not None}


def compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Say in what two runs differ by more than the order of a sum explains; nothing if they do not.

    >>> compare({"loss": torch.tensor(1.0)}, {"loss": torch.tensor(1.5)})
    'loss is off by 0.5 where values reach 1'
    """
    for name in (*expected, *given):
        if name not in expected or name not in given:
            return f"{name} is there in {'the graph' if name in given else 'the models'} alone"
    highest = max((largest(value) for name, value in expected.items() if "gradient" in name), default=0.0)
    for name, value in expected.items():
        other = given[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            return f"{name} is {tuple(other.shape)} of {other.dtype}, not {tuple(value.shape)} of {value.dtype}"
        scale = max(largest(value), 1e-3 * highest if "gradient" in name else 0.0)
        off = apart(value, other)
        if not off <= _tolerance(value.dtype) * scale:
            return f"{name} is off by {off:.2g} where values reach {scale:.2g}"
    return ""


def _tolerance(kind: torch.dtype) -> float:
    return max(1e-3, 30 * torch.finfo(kind).eps) if kind.is_floating_point else 0.0
