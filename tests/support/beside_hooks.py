"""A distiller beside the same step under plain hooks, call after call, on copies of the same models."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

import fxkd
from tests.support.oracle import assert_same, run_with_hooks, seed_everything

Call = tuple[tuple[Any, ...], dict[str, Any]]


def one_point(path: str, data_idx: int | None = None) -> dict[str, Any]:
    """Compare what one module of both models gives by its L1 distance."""
    point = {"x": {"type": "ModuleOutputs", "source": path}}
    part = {} if data_idx is None else {"data_idx": data_idx}
    return {
        "student_recorders": point,
        "teacher_recorders": point,
        "distill_losses": {"loss": {"type": "L1Loss"}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": {"recorder": "x", "from_student": True, **part},
                "t_feature": {"recorder": "x", "from_student": False, **part},
            }
        },
    }


def assert_equals_hooks(
    student: nn.Module,
    teacher: nn.Module,
    spec: dict[str, Any],
    calls: Sequence[Call],
    around: Callable[[Callable[[], Any]], Any] = lambda run: run(),
    **options: Any,
) -> fxkd.Distiller:
    """Step through ``calls``: losses, outputs, all gradients and buffers are those under hooks; give the distiller.

    The graph is captured on the first call. ``around`` runs each step, to put something around it.
    """
    own, guide = copy.deepcopy(student), copy.deepcopy(teacher)
    args, kwargs = calls[0]
    example = fxkd.Inputs(args, kwargs)
    distiller = fxkd.prepare(student, teacher, spec, example_inputs=example, compile=False, **options)
    for step, (args, kwargs) in enumerate(calls):
        plain = partial(run_with_hooks, own, guide, spec, args, kwargs, distiller.connectors, distiller.losses)
        results = []
        for run in (plain, partial(distiller, *args, **kwargs)):
            seed_everything(step)
            result = around(run)
            assert result.loss is not None
            result.loss.backward()
            results.append((result.loss, dict(result.losses), result.output))
        assert_same(*results, path=f"step {step}")
        assert_same(*(state(model) for model in (own, student)), path=f"step {step}")
    return distiller


def state(model: nn.Module) -> dict[str, Any]:
    """Give the gradients and the buffers of a model; no gradient is the same as one of zeros."""
    gradients = {n: p.new_zeros(p.shape) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return {"gradients": gradients, "buffers": dict(model.named_buffers())}
