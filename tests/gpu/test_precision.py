"""The models under hooks, the graph, and the graph compiled train alike, in float32 and under autocast."""

from typing import Any

import pytest
import torch

from tests.gpu.steps import OVERFLOWS, PRECISIONS, SPECS, assert_near, compiler, prepared, train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")  # the compiler's advice


def options(backend: str, device: torch.device) -> dict[str, Any]:
    """Give the options of ``prepare`` for a way to run."""
    compiled = {"graph": False, "compiled": compiler(device), "replayed": compiler(device, mode="reduce-overhead")}
    return {"compile": compiled[backend]}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["graph", "compiled", "replayed"])
def test_all_ways_train_alike(backend: str, precision: str, name: str, device: torch.device) -> None:
    how = PRECISIONS[precision]
    wanted = train(prepared(device, name, backend="eager", compile=False), device, how)
    distiller = prepared(device, name, **options(backend, device))
    found = train(distiller, device, how)
    assert {program.compiled is not None for program in distiller.programs} == {backend != "graph"}
    assert_near(wanted, found, how.tolerance)
    assert wanted.is_skipped == [how.is_scaled and step == OVERFLOWS for step in range(len(wanted.losses))]
    if how.is_scaled:
        assert len({state["scale"] for state in found.scaler}) > 1, "the scaler never moved"
