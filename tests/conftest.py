"""For all tests: the torchvision shim, no downloads, and one line that says what was not run and why."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.support import torchvision_shim

HERE = Path(__file__).parent
WORKER = "PYTEST_XDIST_WORKER"
NO_CUDA = "gpu (no CUDA device)"
NO_SLOW = "slow (FXKD_SLOW=1 runs them)"

collect_ignore = ["support/shim"]  # not a module of this process

not_run = pytest.StashKey[dict[str, int]]()

# Before any test module is imported, and inherited by every subprocess.
torchvision_shim.install()
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE / "support/shim"), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if WORKER in os.environ:  # as many processes as cores: one thread each
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

settings.register_profile("fxkd", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("fxkd")


@pytest.fixture
def fresh_dynamo() -> Generator[None]:
    """Nothing that another test compiled, or failed to, is seen in this one."""
    forget_compiled()
    yield
    forget_compiled()


def forget_compiled() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.hookimpl(trylast=True)  # after -k and -m, so that only what was asked for is counted
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE / "gpu"):
            item.add_marker("gpu")
    reasons = {item: reason for item in items if (reason := why_not(item))}
    counts = config.stash.setdefault(not_run, {})
    for reason in reasons.values():
        counts[reason] = counts.get(reason, 0) + 1
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]


def why_not(item: pytest.Item) -> str | None:
    """Tell why ``item`` does not run here, or nothing."""
    if item.get_closest_marker("gpu") and not (has_cuda() or os.environ.get("FXKD_GPU_DRY_RUN") == "1"):
        return NO_CUDA
    if item.get_closest_marker("slow") and os.environ.get("FXKD_SLOW") != "1":
        return NO_SLOW
    return None


def has_cuda() -> bool:
    return torch.cuda.is_available()


class Workers:
    """Take from the processes of pytest-xdist what they did not run: each leaves out the same."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        node.config.stash[not_run] = getattr(node, "workeroutput", {}).get("not_run", {})


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Workers())


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = session.config.stash.get(not_run, {})


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own summary, so that the line comes last
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    result = yield
    counts = dict(config.stash.get(not_run, {}))
    if skipped := len(terminalreporter.stats.get("skipped", [])):
        counts["skipped (reasons above)"] = skipped
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    terminalreporter.write_line(f"not run: {told}")
    return result
