"""DistributedDataParallel around a distiller, or around its student: one process, the gradients of plain training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

import fxkd
from fxkd.errors import CaptureError
from tests.support.hooks import Net, assert_right, batch, plain, spec_of
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])


@pytest.fixture(autouse=True)
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def gradients(call: Any, model: torch.nn.Module) -> list[Any]:
    model.zero_grad()
    out = call(batch())
    (out.loss + out.output.sum()).backward()
    return [out.loss.detach(), out.output.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@BACKENDS
def test_a_wrapped_distiller(backend: str) -> None:
    distiller = fxkd.prepare(Net(0), Net(1), spec_of(), example_inputs=batch(), backend=backend)
    twin = fxkd.prepare(Net(0), Net(1), spec_of(), backend="eager")
    wrapped = DistributedDataParallel(distiller)
    for _ in range(2):
        wanted, found = gradients(twin, twin), gradients(wrapped, distiller)
        assert_same(wanted, found, 1e-5)
    assert not [name for name, _ in wrapped.named_parameters() if "teacher" in name]
    assert wrapped.module is distiller


def test_a_wrapped_student() -> None:
    """The eager backend runs the wrapper's own machinery; points lie under ``module.``."""
    student = DistributedDataParallel(Net(0))
    distiller = fxkd.prepare(student, Net(1), spec_of("module.first", "first"), backend="eager")
    twin = fxkd.prepare(Net(0), Net(1), spec_of(), backend="eager")
    for _ in range(2):
        assert_same(gradients(twin, twin), gradients(distiller, distiller), 1e-5)
    assert distiller.student is student


@pytest.mark.parametrize("called", [True, False])
def test_a_wrapped_student_is_no_graph(called: bool) -> None:
    """A graph would leave the wrapper's machinery out, and with it the exchange of gradients: it is refused."""
    student = DistributedDataParallel(Net(0))
    if called:
        student(batch()).sum().backward()
    with pytest.raises(CaptureError, match=r"a DistributedDataParallel.*wrap the distiller.*backend='eager'"):
        fxkd.prepare(student, Net(1), spec_of("module.first", "first"), example_inputs=batch())


def test_a_distiller_that_ran_before_it_was_wrapped() -> None:
    distiller = fxkd.prepare(Net(0), Net(1), spec_of(), example_inputs=batch())
    assert_right(distiller, plain)
    wrapped = DistributedDataParallel(distiller)
    twin = fxkd.prepare(Net(0), Net(1), spec_of(), backend="eager")
    assert_same(gradients(twin, twin), gradients(wrapped, distiller), 1e-5)
    assert len(distiller.programs) == 1
