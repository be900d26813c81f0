"""CUDA graphs write each step's results into the memory of the last one's; what a caller keeps must not change."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.gpu.steps import batch, compiler, gradients, prepared
from tests.support.oracle import assert_same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")  # the compiler's advice
WARM_UP = 4  # torch runs, then records, then replays


def kept(out: Any) -> dict[str, Any]:
    """Give everything of a step without its graph of gradients, in the memory where it is."""
    return pytree.tree_map_only(Tensor, Tensor.detach, dict(out))  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["reduce-overhead", {"triton.cudagraphs": True}], ids=["mode", "options"])
def test_what_is_kept_of_a_step_stays(mode: Any, device: torch.device) -> None:
    if device.type == "cpu" and isinstance(mode, dict):
        pytest.skip("the compiler of the dry run takes no options")
    how = compiler(device, **({"mode": mode} if isinstance(mode, str) else {"options": mode}))
    distiller = prepared(device, "records", compile=how, return_records=True)
    steps, copies = [], []
    for seed in range(WARM_UP + 4):
        out = distiller(*batch(device, seed))
        steps.append(kept(out))
        copies.append(pytree.tree_map_only(Tensor, Tensor.clone, steps[-1]))
        out.loss.backward()
        distiller.zero_grad()
    assert_same(copies, steps)
    losses = [float(step["loss"]) for step in steps]
    assert len(set(losses)) == len(losses), "the batches differ, so must the losses"


def test_a_step_is_the_right_one_when_it_is_replayed(device: torch.device) -> None:
    plain = prepared(device, "records", compile=False, return_records=True)
    replayed = prepared(device, "records", compile=compiler(device, mode="reduce-overhead"), return_records=True)
    for seed in range(WARM_UP + 2):
        wanted, found = plain(*batch(device, seed)), replayed(*batch(device, seed))
        assert_same(kept(wanted), kept(found), 1e-3, atol=1e-5)
        found.loss.backward()
        replayed.zero_grad()


def test_two_steps_before_one_backward(device: torch.device) -> None:
    distillers = [
        prepared(device, "records", compile=False),
        prepared(device, "records", compile=compiler(device, mode="reduce-overhead")),
    ]
    for seed in range(0, 2 * WARM_UP, 2):
        found = []
        for distiller in distillers:
            distiller.zero_grad()
            first, second = distiller(*batch(device, seed)), distiller(*batch(device, seed + 1))
            (first.loss + second.loss).backward()
            found.append(gradients(distiller))
        largest = max(float(gradient.abs().max()) for gradient in found[0].values())
        assert_same(*found, 0.0, atol=1e-3 * largest)


def test_graphs_are_really_recorded(device: torch.device) -> None:
    """Without this the tests above would pass where torch gives up on CUDA graphs."""
    if device.type == "cpu":
        pytest.skip("there are no CUDA graphs on the CPU")
    from torch._inductor.cudagraph_trees import get_manager

    distiller = prepared(device, "records", compile={"mode": "reduce-overhead"})
    for seed in range(WARM_UP):
        distiller(*batch(device, seed)).loss.backward()
    assert get_manager(torch.cuda.current_device(), create_if_none_exists=False) is not None
