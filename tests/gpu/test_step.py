"""A step does not wait for the GPU, a move takes all along, and ``compile="auto"`` goes by where the student is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fxkd
from tests.gpu.steps import EXAMPLES, SPECS, Net, batch, prepared
from tests.support.oracle import assert_same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")  # the compiler's advice

aten = torch.ops.aten
READS_BACK = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}


class NoReadBack(TorchDispatchMode):
    """Refuses what needs the value of a tensor in Python: on any device a sign of waiting."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in READS_BACK, f"{func} reads a value back"
        return func(*args, **(kwargs or {}))


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Let whatever waits for the GPU raise."""
    if device.type == "cpu":
        with NoReadBack():
            yield
        return
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_what_waits_is_noticed(device: torch.device) -> None:
    """The check of the tests below can fail."""
    value = torch.ones((), device=device)
    with pytest.raises((RuntimeError, AssertionError)), waiting_is_an_error(device):
        value.item()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("options", [{}, {"return_records": True}], ids=["plain", "records"])
def test_a_step_does_not_wait_for_the_gpu(options: dict[str, Any], name: str, device: torch.device) -> None:
    distiller = prepared(device, name, compile=False, **options)
    given = batch(device)
    for _ in range(2):
        distiller(*given).loss.backward()
    captures = len(distiller.programs)
    with waiting_is_an_error(device):
        out = distiller(*given)
        out.loss.backward()
    assert torch.isfinite(out.loss)
    assert len(distiller.programs) == captures


SHIFT = torch.tensor(0.5)  # hangs on no model, so the capture lifts it; a number on the CPU goes with any device
TABLE = {"scale": torch.linspace(0.5, 1.5, 8)}


class Lifts(nn.Module):
    """Uses tensors from outside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * TABLE["scale"].to(x.device) + SHIFT


def lifting(device: torch.device) -> tuple[fxkd.Distiller, Tensor]:
    torch.manual_seed(0)
    pair = {"student": "fc", "teacher": "fc", "loss": {"type": "L2Loss"}}
    x = torch.randn(EXAMPLES, 8)
    distiller = fxkd.prepare(Lifts(), Lifts(), {"pairs": [pair]}, example_inputs=x, compile=False)
    return distiller, x.to(device)


def test_teacher_and_lifted_constants_move_along(device: torch.device) -> None:
    distiller, x = lifting(device)
    before = distiller(x.cpu())
    moved = distiller.cuda() if device.type == "cuda" else distiller.to(device)
    assert moved is distiller
    tensors = [*distiller.parameters(), *distiller.teachers["teacher"].parameters()]
    assert {tensor.device.type for tensor in tensors} == {device.type}
    out = distiller(x)
    assert {out.loss.device.type, out.output.device.type} == {device.type}
    assert_same(distiller.student(x), out.output, 1e-5)
    assert_same(before.output.detach(), out.output.detach().cpu(), 1e-4)
    assert_same(before.loss.detach(), out.loss.detach().cpu(), 1e-4)
    out.loss.backward()
    assert distiller.student.fc.weight.grad.device.type == device.type
    back = distiller.cpu()(x.cpu())
    assert_same(before.output, back.output, 1e-5)


def test_auto_compiles_on_cuda(device: torch.device) -> None:
    distiller = prepared(device, "records")
    distiller(*batch(device))
    on_cuda = device.type == "cuda"
    assert {program.compiled is not None for program in distiller.programs} == {on_cuda}
    words = "compiled (the student is on CUDA)" if on_cuda else "not compiled (the student is not on CUDA)"
    assert f"backend: graph, {words}" in repr(distiller)


def test_auto_goes_by_where_the_student_is_now(device: torch.device) -> None:
    distiller = fxkd.prepare(Net(8), Net(12), SPECS["records"], example_inputs=batch(torch.device("cpu")))
    assert {program.compiled for program in distiller.programs} == {None}
    distiller.to(device)
    distiller(*batch(device)).loss.backward()
    assert [program.compiled is not None for program in distiller.programs] == [device.type == "cuda"]
