"""Tests of fxkd/losses/onehot_like_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import OnehotLikeLoss
from tests.golden import S2, T2, T4, assert_golden
from tests.losses.agreement import value_and_gradient


def formula(logits: Tensor) -> Tensor:
    """Sample by sample."""
    costs = [-(row.exp() / row.exp().sum()).max().log() for row in logits]
    return torch.stack(costs).sum() / len(costs)


def test_golden() -> None:
    assert_golden(OnehotLikeLoss()(T2), 0.7670318416)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "OnehotLikeLoss"})) is OnehotLikeLoss


@pytest.mark.parametrize("logits", [S2, T2, 3 * S2])
def test_agrees_with_the_formula(logits: Tensor) -> None:
    found = value_and_gradient(OnehotLikeLoss(loss_weight=0.5), logits)
    torch.testing.assert_close(found, value_and_gradient(lambda t: 0.5 * formula(t), logits))


def test_differentiable() -> None:
    assert torch.autograd.gradcheck(OnehotLikeLoss(), T2.clone().requires_grad_())


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="OnehotLikeLoss: loss_weight is '1'; it must be a number"):
        OnehotLikeLoss(loss_weight="1")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"preds_T has shape \(3, 4, 2, 5\); it takes logits \(N, C\)"):
        OnehotLikeLoss()(T4)
    with pytest.raises(SpecError, match=r"preds_T is a list, not a tensor; pick one part of it with 'data_idx'"):
        OnehotLikeLoss()([T2])
