"""Run a captured model beside a copy of it under plain hooks: outputs, records, all gradients and buffers are equal."""

import copy
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxkd
from fxkd.errors import FxkdError
from tests.support.oracle import assert_same, recording, seed_everything, snapshot
from tests.zoo.model import REFUSED, RIGHT, Call, Model
from tests.zoo.points import Recorders, chosen, run

WRONG, CRASHED = "wrong", "crashed"
EXAMPLE = "example"
BATCH = 2  # what is captured
ROUNDING = (
    2**-25
)  # of the largest gradient of all: one that is nothing but for rounding has no largest value of its own


@dataclass(kw_only=True)
class Outcome:
    """What came of one call of a model in one mode.

    Args:
        model: The model.
        mode: "train" or "eval".
        call: The name of the call; "example" is the one that was captured.
        verdict: "right", "refused", "wrong" (without a word) or "crashed".
        message: What was said, or where the difference is.
        seconds: CPU seconds of the capture, for the example alone.
        captures: How many graphs there are after the call.
    """

    model: Model
    mode: str
    call: str
    verdict: str
    message: str = ""
    seconds: float | None = None
    captures: int = 0

    @property
    def is_expected(self) -> bool:
        """Whether it is right, or was refused for the reason that the model is refused for."""
        is_refusal = self.verdict == REFUSED and self.model.expected == REFUSED
        return self.verdict == RIGHT or (is_refusal and re.search(self.model.reason, self.message) is not None)


@dataclass(kw_only=True)
class Step:
    """All that can be compared of one call."""

    output: Any
    records: Any
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor] = field(default_factory=dict)


def outcomes(model: Model) -> Iterator[Outcome]:
    """Compare a model in each of its modes, on the call it is captured on and on each further one."""
    for mode in model.modes:
        with warnings.catch_warnings(action="ignore"):
            yield from outcomes_in(model, mode)


def outcomes_in(model: Model, mode: str) -> Iterator[Outcome]:
    """Compare a model in one mode."""
    plain, call = model.built(mode), model.inputs(BATCH)
    every = [call, *(make() for make in model.further.values())]
    points: Recorders = dict(model.recorders) if model.recorders is not None else chosen(copy.deepcopy(plain), every)
    ours = copy.deepcopy(plain)
    began = time.process_time()
    recorded, told = attempt(lambda: fxkd.record(ours, points, fxkd.Inputs(*copied(call))))
    seconds = time.process_time() - began
    if recorded is None:
        yield Outcome(model=model, mode=mode, call=EXAMPLE, verdict=told[0], message=told[1], seconds=seconds)
        return
    for seed, (name, given) in enumerate(calls(model, call).items()):
        verdict, message = compared(plain, recorded, points, given, seed)
        ours.load_state_dict(plain.state_dict())  # they go on from one state, also where one of them refused
        found = Outcome(model=model, mode=mode, call=name, verdict=verdict, message=message)
        found.seconds = seconds if name == EXAMPLE else None
        found.captures = len(recorded._running.programs)
        yield found


def calls(model: Model, call: Call) -> dict[str, Call]:
    """Give the example, each further call, and the example again: what came between must not matter."""
    others = {name: make() for name, make in model.further.items()}
    return {EXAMPLE: call} | others | ({"example again": call} if others else {})


def attempt(what: Any) -> tuple[Any, tuple[str, str]]:
    """Do something; give what it gives, or what was said instead."""
    try:
        return what(), (RIGHT, "")
    except FxkdError as error:
        return None, (REFUSED, str(error))
    except Exception as error:  # noqa: BLE001 (whatever it is, it goes into the table)
        return None, (CRASHED, f"{type(error).__name__}: {error}")


def compared(
    plain: nn.Module, recorded: nn.Module, points: Mapping[str, Any], call: Call, seed: int
) -> tuple[str, str]:
    """Run both on one call under one seed; say what came of it."""
    wanted = step_with_hooks(plain, points, copied(call), seed)
    found, told = attempt(lambda: step(recorded, recorded.model, copied(call), seed))
    if found is None:
        return told
    check_telling(wanted)
    try:
        noise = ROUNDING * max(float(value.abs().max()) for value in floats(wanted.gradients) if value.numel())
        assert_same(wanted.gradients, found.gradients, atol=noise, path="gradients")
        assert_same(vars(wanted) | {"gradients": None}, vars(found) | {"gradients": None})
    except AssertionError as difference:
        return WRONG, str(difference)
    return RIGHT, ""


def step_with_hooks(model: nn.Module, points: Mapping[str, Any], call: Call, seed: int) -> Step:
    """Take a step of a model under plain hooks and patches."""

    def under_hooks(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with recording(model, points) as records:
            output = model(*args, **kwargs)
        return output, records

    return step(under_hooks, model, call, seed)


def step(pair: Any, model: nn.Module, call: Call, seed: int) -> Step:
    """Take a step on what ``pair`` gives, the output and the records; the gradients are those of ``model``."""
    seed_everything(seed)
    model.zero_grad(set_to_none=True)
    output, records = run(pair, call)
    kept = snapshot((output, records))
    terms = [energy(value) for value in floats((output, records)) if value.requires_grad]
    if terms:
        torch.stack(terms).sum().backward()
    gradients = {name: snapshot(value.grad) for name, value in model.named_parameters()}
    return Step(output=kept[0], records=kept[1], gradients=gradients, buffers=snapshot(dict(model.named_buffers())))


def energy(value: Tensor) -> Tensor:
    """Give a number that depends on every element of a tensor, whatever its size."""
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.real.dtype).reshape(value.shape)
    return (weights * value.abs().square()).mean() if value.numel() else value.real.sum()


def floats(value: Any) -> list[Tensor]:
    """List the tensors of floating point inside a nested value."""
    leaves = pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())]


def check_telling(wanted: Step) -> None:
    """Refuse a comparison that could not tell anything: nothing recorded, no gradient, or no finite one."""
    grads = [value for value in wanted.gradients.values() if value is not None]
    if not wanted.records or not any(bool(value.count_nonzero()) for value in grads):
        raise ValueError("nothing is recorded, or no gradient arrives: the comparison tells nothing")
    if not all(bool(value.isfinite().all()) for value in grads):
        raise ValueError("gradients of the model itself are not finite: the comparison tells nothing")


def copied(call: Call) -> Call:
    """Copy the arguments of a call, which a model may write to."""
    return copy.deepcopy(call)
