"""The GPU tests tried on the CPU, and that a run without a GPU says how many it left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHEAP = "waits or move_along or goes_by or (plain and delivery) or (graph and float16 and delivery)"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest on the GPU tests where no GPU can be seen."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", *arguments]
    kept = {key: value for key, value in os.environ.items() if key not in ("FXKD_GPU_DRY_RUN", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        command, cwd=ROOT, env=kept | {"CUDA_VISIBLE_DEVICES": ""} | environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("chosen", [CHEAP, pytest.param("", marks=pytest.mark.slow)], ids=["cheap", "all"])
def test_all_but_the_device_works_and_what_is_left_out_is_counted(chosen: str) -> None:
    status, told = run("-k", chosen, FXKD_GPU_DRY_RUN="1")
    assert status == 0, told
    assert re.search(r"\d+ passed", told)
    count = sum(int(found) for found in re.findall(r"(\d+) (?:passed|deselected)", told))
    assert count > 20
    status, told = run()
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"not run: {count} gpu (no CUDA device)" in told
