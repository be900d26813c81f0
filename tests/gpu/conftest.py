"""The device of the GPU tests: CUDA, or with ``FXKD_GPU_DRY_RUN=1`` the CPU, to try all but the device itself."""

import os

import pytest
import torch

# Read by cuBLAS and cuDNN when they start: float32 is float32. The flags of torch come in two sets that do not mix.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _fresh_dynamo(fresh_dynamo: None) -> None:
    """Compile anew in every test."""
