"""Every kind of result of a function that runs on values alone, delivered: in the graph, under hooks, and compiled."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.opaque import producers
from tests.opaque.producers import Net
from tests.opaque.steps import Spy, assert_trains_alike

KINDS = ("whole_number", "real_number", "drawn_number", "array", "nothing", "nested", "chosen", "found", "itself")
QUICK = {("array", "compiled"), ("nested", "compiled"), ("found", "joint")}
WAYS: dict[str, dict[str, Any]] = {
    "graph": {"backend": "graph"},
    "eager": {"backend": "eager"},
    "compiled": {"wrap": lambda distiller: torch.compile(distiller, fullgraph=True, backend="aot_eager")},
    "joint": {"compile": {"fullgraph": True, "backend": "aot_eager"}},
}

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def batch(seed: int) -> dict[str, Any]:
    return {"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))}


def delivering(kind: str) -> dict[str, Any]:
    delivery = {"type": "FunctionOutputs", "func_path": f"{producers.__name__}.{kind}", "max_keep_data": 1}
    return {"distill_deliveries": {"m": delivery}}


def every() -> Iterator[Any]:
    """Yield all pairs; compiled are a few of them, as that is the slow part."""
    for kind in KINDS:
        for way in WAYS:
            is_quick = way in ("graph", "eager") or (kind, way) in QUICK
            yield pytest.param(kind, way, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "way"), list(every()))
def test_the_student_goes_on_with_what_the_teacher_made(kind: str, way: str) -> None:
    spy = Spy(producers, kind)

    def by_hand(student: nn.Module, teacher: nn.Module, given: dict[str, Any]) -> Tensor:
        loss: Tensor = spy.replaying(lambda: teacher(**given), lambda: student(**given))["loss"]
        return loss

    names = assert_trains_alike(
        lambda: (Net(kind, 0), Net(kind, 1)), delivering(kind), batch, by_hand, spy, **WAYS[way]
    )
    if way in ("compiled", "joint"):
        assert not torch._dynamo.utils.counters["graph_break"]
    assert way == "eager" or f"teacher_{kind}" in names
    assert f"student_{kind}" not in names, "what is replaced is pruned"
