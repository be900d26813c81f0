"""The column of the matrix with two processes: each has half of the samples, DistributedDataParallel joins them.

``across`` launches them once for any number of specs; a process is ``python -m tests.matrix.processes``.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from fxkd.errors import FxkdError
from tests.matrix.cells import STEPS, SURROUNDINGS, Pair, compare, default_type
from tests.support import torchvision_shim
from tests.support.oracle import named

COLUMN = "DDP, 2 processes"
LIMIT = 900  # seconds for all specs
ROOT = Path(__file__).resolve().parents[2]


def across(rows: Sequence[str]) -> dict[str, float | str]:
    """Give the cell of each spec: the larger difference of both processes, or what refuses it."""
    count = SURROUNDINGS[COLUMN].processes
    with tempfile.TemporaryDirectory(prefix="fxkd-matrix-") as place:
        given = [str(Path(place) / "store"), json.dumps(list(rows))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.matrix.processes"]
        running = [
            subprocess.Popen(
                [*command, str(rank), *given], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            )
            for rank in range(count)
        ]
        try:
            said = [process.communicate(timeout=LIMIT)[0] for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
    if any(process.returncode for process in running):
        raise AssertionError(f"a process ended with {[process.returncode for process in running]}: {said}")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return {row: max((one[row] for one in found), key=lambda cell: (isinstance(cell, str), cell)) for row in rows}


def main(rank: int, store: str, rows: Sequence[str]) -> None:
    """Run one process and print its cells."""
    torch.set_num_threads(1)
    count = SURROUNDINGS[COLUMN].processes
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    try:
        print(json.dumps({row: cell(row, rank) for row in rows}))
    finally:
        distributed.destroy_process_group()


def cell(row: str, rank: int) -> float | str:
    """Compare a wrapped distiller with plain PyTorch whose gradients are averaged by hand."""
    how = SURROUNDINGS[COLUMN]
    with default_type(how.dtype):
        try:
            pair = Pair.of(row, how)
            wrapped = DistributedDataParallel(pair.distiller, find_unused_parameters=True)
            return compare(pair, wrapped, pair.plain, lambda gradients: average(pair, gradients), first=rank * STEPS)
        except FxkdError as error:
            return f"refused: {error}"


def average(pair: Pair, gradients: dict[str, Tensor]) -> None:
    """Do to the reference what the wrapper does: the mean of all gradients, the first process's statistics."""
    parameters = named(pair.parts["plain"], "named_parameters")
    for name in sorted(gradients):
        distributed.all_reduce(gradients[name])
        gradients[name] /= distributed.get_world_size()
        parameters[name.removeprefix("gradient ")].grad.copy_(gradients[name])
    for buffer in named(pair.parts["plain"], "named_buffers").values():
        distributed.broadcast(buffer, 0)


if __name__ == "__main__":
    torchvision_shim.install()
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
