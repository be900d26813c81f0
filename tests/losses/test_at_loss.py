"""Tests of fxkd/losses/at_loss.py."""

import pytest
import torch
from torch import Tensor

from fxkd import losses
from fxkd.errors import SpecError
from fxkd.losses import ATLoss
from tests.golden import S2, S4, T2, T4, assert_golden
from tests.losses.agreement import (
    assert_agrees,
    assert_compiles,
    assert_costs_nothing,
    assert_differentiable,
    assert_finite,
    assert_finite_in_half,
    assert_layout_does_not_count,
)


def formula(student: Tensor, teacher: Tensor) -> Tensor:
    """Position by position."""
    total = torch.zeros((), dtype=student.dtype)
    positions = 0
    for s, t in zip(student, teacher, strict=True):
        energy_s, energy_t = (
            [(x[:, i] ** 2).sum() / len(x) for i in range(x.shape[1])] for x in (s.flatten(1), t.flatten(1))
        )
        length_s, length_t = (sum(e * e for e in energy) ** 0.5 for energy in (energy_s, energy_t))
        total = total + sum((a / length_s - b / length_t) ** 2 for a, b in zip(energy_s, energy_t, strict=True))
        positions += len(energy_s)
    return total / positions


def test_golden() -> None:
    assert_golden(ATLoss()(S4, T4), 0.0199536923)


def test_found_by_name() -> None:
    assert type(losses.build({"type": "ATLoss", "loss_weight": 250})) is ATLoss


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_agrees_with_the_formula(channels: int) -> None:
    assert_agrees(ATLoss(loss_weight=250), lambda s, t: 250 * formula(s, t), S4, T4[:, :channels])


def test_vectors_have_no_attention() -> None:
    assert ATLoss()(S2, T2) == 0


def test_differentiable() -> None:
    assert_differentiable(ATLoss(), S4[:2, :3], T4[:2, :2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_dead_sample(dtype: torch.dtype) -> None:
    dead = S4.to(dtype).clone()
    dead[1] = 0
    assert_finite(ATLoss(), dead, T4.to(dtype))
    assert_finite(ATLoss(), T4.to(dtype), dead)


def test_a_faint_sample_is_divided_by_the_floor() -> None:
    faint = 1e-7 * S4  # its energy, about 1e-14, lies under the floor of 1e-12
    energy = faint.pow(2).mean(1).flatten(1)
    expected = torch.nn.functional.normalize(energy) - torch.nn.functional.normalize(T4.pow(2).mean(1).flatten(1))
    torch.testing.assert_close(ATLoss()(faint, T4), expected.pow(2).mean())


def test_layout() -> None:
    assert_layout_does_not_count(ATLoss(), S4, T4)


def test_an_empty_batch() -> None:
    assert_costs_nothing(ATLoss(), S4[:0], T4[:0])


def test_half() -> None:
    assert_finite_in_half(ATLoss(loss_weight=10), S4, T4)


def test_compiles() -> None:
    assert_compiles(ATLoss(), S4, T4)


def test_wrong_options() -> None:
    with pytest.raises(SpecError, match="ATLoss: loss_weight is '250'; it must be a number"):
        ATLoss(loss_weight="250")


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match=r"t_feature has shape \(3, 4, 1, 5\); all but the channels .* must be equal"):
        ATLoss()(S4, T4[:, :, :1])
    with pytest.raises(SpecError, match=r"t_feature has shape \(1, 4, 2, 5\)"):
        ATLoss()(S4, T4[:1])
