"""The device of the GPU tests: CUDA, or with ``FXKD_GPU_DRY_RUN=1`` the CPU, to try all but the device itself."""

import os
from collections.abc import Iterator

import pytest
import torch

# Read by cuBLAS and cuDNN when they start: float32 is float32. The flags of torch come in two sets that do not mix.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
