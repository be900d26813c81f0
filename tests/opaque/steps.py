"""Five steps of a distillation with a delivery beside the same by hand: losses, gradients, values, calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxkd
from tests.support.oracle import assert_same, seed_everything, snapshot

STEPS = 5
Batch = Callable[[int], dict[str, Any]]
Step = Callable[[nn.Module, nn.Module, dict[str, Any]], Tensor]


@dataclass
class Spy:
    """Stands at the place of a function: counts its calls and keeps what it gave, or gives what it is told.

    Args:
        owner: Where the function is looked up.
        name: Its name there.
        results: What each call gave, as it was then.
        told: Values to give in place of the function's own, first in first out.
    """

    owner: Any
    name: str
    results: list[Any] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator["Spy"]:
        """Stand there while inside."""
        function = vars(self.owner)[self.name]

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.told:
                return self.told.pop(0)
            result = function(*args, **kwargs)
            self.results.append(snapshot(result))
            return result

        call.__name__, call.__qualname__, call.__module__ = self.name, self.name, __name__
        setattr(self.owner, self.name, call)
        try:
            yield self
        finally:
            setattr(self.owner, self.name, function)

    def replaying(self, run: Callable[[], Any], then: Callable[[], Any]) -> Any:
        """Run ``run``, then ``then`` with what the function gave in ``run``."""
        before = len(self.results)
        with torch.no_grad():
            run()
        self.told = self.results[before:]
        result = then()
        assert not self.told, "more values than calls"
        return result


def assert_trains_alike(
    models: Callable[[], tuple[nn.Module, nn.Module]],
    spec: dict[str, Any],
    batch: Batch,
    by_hand: Step,
    spy: Spy,
    *,
    calls: int = 1,
    wrap: Callable[[fxkd.Distiller], Any] = lambda distiller: distiller,
    rtol: float = 1e-5,
    **options: Any,
) -> list[str]:
    """Train five steps both ways, and give the names of the nodes of the graph.

    ``by_hand`` gives the loss of the same step, with ``spy`` in the function's place.
    """
    (student, teacher), (own, other) = models(), models()
    with spy.watching():
        distiller = fxkd.prepare(
            student, teacher, with_records(spec), example_inputs=batch(0), return_records=True, **options
        )
        step = wrap(distiller)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (student, own)]
        for seed in range(STEPS):
            seed_everything(seed)
            spy.results.clear()
            wanted = by_hand(own, other, batch(seed))
            made = list(spy.results)
            seed_everything(seed)
            spy.results.clear()
            out = step(**batch(seed))
            assert len(made) == len(spy.results) == calls, "the student's own is not called"
            assert_same(made, spy.results)
            given = out.records
            assert_same([given["teacher"]["given"], given["student"]["given"]], [spy.results, spy.results])
            for optimizer, loss in zip(optimizers, (out.loss, wanted), strict=True):
                optimizer.zero_grad()
                loss.backward()
            assert_same(wanted, out.loss, rtol)
            assert_same(gradients(own), gradients(student), rtol, atol=1e-7)
            for optimizer in optimizers:
                optimizer.step()
        return [node.name for node in distiller.graph_module.graph.nodes] if options.get("backend") != "eager" else []


def with_records(spec: dict[str, Any]) -> dict[str, Any]:
    """Record in both models what is delivered, under the name ``given``."""
    ((_, delivery),) = spec["distill_deliveries"].items()
    path = delivery.get("method_path") or delivery["func_path"]
    records = {"given": {"type": delivery["type"], "source": path}}
    return spec | {side: spec.get(side, {}) | records for side in ("student_recorders", "teacher_recorders")}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}
