"""Tests of fxkd/losses/information_entropy_loss.py."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import InformationEntropyLoss
from tests.golden import S2, T2, T4, assert_golden
from tests.losses.agreement import value_and_gradient


def formula(logits: Tensor) -> Tensor:
    """Class by class."""
    total = torch.zeros((), dtype=logits.dtype)
    for c in range(logits.shape[1]):
        p = sum(row[c].exp() / row.exp().sum() for row in logits) / len(logits)
        total = total + p * p.log() / torch.tensor(10.0, dtype=logits.dtype).log()
    return total


def test_golden() -> None:
    assert_golden(InformationEntropyLoss()(T2), -0.6863943306)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "InformationEntropyLoss", "gather": False})) is InformationEntropyLoss


@pytest.mark.parametrize("logits", [S2, T2, T2[:1]])
def test_agrees_with_the_formula(logits: Tensor) -> None:
    found = value_and_gradient(InformationEntropyLoss(loss_weight=5), logits)
    torch.testing.assert_close(found, value_and_gradient(lambda t: 5 * formula(t), logits))


def test_differentiable() -> None:
    assert torch.autograd.gradcheck(InformationEntropyLoss(), T2.clone().requires_grad_())


def test_a_class_that_never_comes_counts_nothing() -> None:
    logits = torch.tensor([[0.0, 0.0, -1000.0], [0.0, 0.0, -2000.0]])
    value, gradient = value_and_gradient(InformationEntropyLoss(), logits)
    torch.testing.assert_close(value, torch.tensor(0.5).log10())
    assert gradient.isfinite().all()


RANK = """
import sys, torch
from torch import distributed as dist
from fxkd.losses import InformationEntropyLoss
from tests.golden import T2
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
found = []
for gather in (True, False):
    loss = InformationEntropyLoss(gather=gather)
    for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        mine = (T2[:3] if rank == 0 else T2[3:]).clone().requires_grad_()  # batches of three and of one
        value = run(mine)
        (value * (rank + 1)).backward()
        found += [value.detach(), mine.grad]
torch.save(found, out)
dist.destroy_process_group()
"""


def test_two_processes(tmp_path: Path) -> None:
    """Each has the entropy of both batches, and the gradient of what all ranks make of it: here 1 + 2 times."""
    store, outs = tmp_path / "store", [tmp_path / "0.pt", tmp_path / "1.pt"]
    commands = [[sys.executable, "-c", RANK, str(rank), store, out] for rank, out in enumerate(outs)]
    ranks = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for command in commands]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    value, gradient = value_and_gradient(formula, T2)
    for rank, (out, rows) in enumerate(zip(outs, (slice(0, 3), slice(3, 4)), strict=True)):
        found = torch.load(out)
        torch.testing.assert_close(found[:4], [value, 3 * gradient[rows]] * 2)
        alone, own = value_and_gradient(formula, T2[rows])
        torch.testing.assert_close(found[4:], [alone, (rank + 1) * own] * 2)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="InformationEntropyLoss: gather is 'yes'; it can be True, False"):
        InformationEntropyLoss(gather="yes")
    with pytest.raises(SpecError, match="InformationEntropyLoss: loss_weight is '1'; it must be a number"):
        InformationEntropyLoss(loss_weight="1")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 4, 2, 5\); it takes logits \(N, C\)"):
        InformationEntropyLoss()(T4)
