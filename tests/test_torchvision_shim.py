"""torchvision can be imported in the tests' process and in the processes they start, whatever its binary needs."""

import subprocess
import sys
from pathlib import Path

from tests.support import torchvision_shim

ROOT = Path(__file__).parent.parent
USES = "import torch, torchvision; assert torch.ops.torchvision.nms is not None"


def test_here() -> None:
    import torchvision

    assert torchvision.models.resnet18(num_classes=2).fc.out_features == 2


def test_in_a_process_that_is_started() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", USES], check=True)


def test_asked_twice_beside_the_one_from_the_start() -> None:
    twice = "from tests.support.torchvision_shim import install; install(); install(); "
    subprocess.run([sys.executable, "-W", "error", "-c", twice + USES], cwd=ROOT, check=True)


def test_costs_nothing_before_torchvision_is_asked_for() -> None:
    waits = "import sys; assert type(sys.meta_path[0]).__name__ == 'BeforeTorchvision'; "
    subprocess.run([sys.executable, "-c", waits + "assert 'torch' not in sys.modules"], check=True)


def test_finds_nothing_itself() -> None:
    assert torchvision_shim.BeforeTorchvision().find_spec("json") is None
