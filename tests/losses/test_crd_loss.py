"""Tests of fxkd/losses/crd_loss.py."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fxkd import losses
from fxkd.errors import SpecError, SpecWarning
from fxkd.losses import CRDLoss
from tests.golden import S2, T2
from tests.losses.agreement import assert_costs_nothing, assert_differentiable, assert_finite, value_and_gradients

S, T = F.normalize(S2, dim=1), F.normalize(T2, dim=1)
OWN = torch.tensor([7, 0, 9, 3])
CONTRAST = torch.tensor([[7, 1, 1, 2], [0, 5, 8, 9], [9, 0, 1, 2], [3, 7, 9, 4]])
OPTIONS: dict[str, Any] = {"neg_num": 3, "sample_n": 10, "dim_out": 6}


def build(**options: Any) -> CRDLoss:
    torch.manual_seed(0)
    return CRDLoss(**{**OPTIONS, **options}).double()


def formula(features: Tensor, bank: Tensor, temperature: float, eps: float, constant: float | None) -> Any:
    """Sample by sample; gives the loss and the constant."""
    pairs = zip(features, CONTRAST.tolist(), strict=True)
    scores = [[(sum(bank[i] * x) / temperature).exp() for i in row] for x, row in pairs]
    if constant is None:
        constant = sum(map(sum, scores)).item() / 16 * 10
    noise = 3 / 10
    total = torch.zeros((), dtype=features.dtype)
    for first, *rest in ([score / constant for score in row] for row in scores):
        total = total - (first / (first + noise + eps)).log() - sum((noise / (o + noise + eps)).log() for o in rest)
    return total / 4, constant


@pytest.mark.parametrize(("temperature", "eps"), [(0.07, 1e-7), (0.5, 0.1)])
def test_agrees_with_the_formula_over_two_batches(temperature: float, eps: float) -> None:
    """In the second the constants are those of the first, and the banks have moved."""
    loss = build(temperature=temperature, eps=eps, momentum=0.75)
    banks = [loss.memory_v1.clone(), loss.memory_v2.clone()]
    constants: list[Any] = [None, None]
    for student, teacher in ((S, T), (T, S)):
        s, t = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        of_s, z_s = formula(s, banks[1], temperature, eps, constants[0])
        of_t, z_t = formula(t, banks[0], temperature, eps, constants[1])
        constants = [z_s, z_t]
        expected = [(of_s + of_t).detach().reshape(1), *torch.autograd.grad(of_s + of_t, [s, t])]
        found = value_and_gradients(loss, student, teacher, (OWN, CONTRAST))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        for bank, features in zip(banks, (student, teacher), strict=True):
            for i, x in zip(OWN.tolist(), features, strict=True):
                moved = 0.75 * bank[i] + 0.25 * x
                bank[i] = moved / (moved @ moved) ** 0.5
        torch.testing.assert_close([loss.memory_v1, loss.memory_v2], banks)
    torch.testing.assert_close(loss.params[2:4], torch.tensor(constants, dtype=torch.float64))


def test_found_by_name() -> None:
    assert type(losses.build({"type": "CRDLoss", **OPTIONS})) is CRDLoss


def test_the_state() -> None:
    loss = CRDLoss(**OPTIONS, temperature=0.5, momentum=0.25)
    assert list(loss.state_dict()) == ["params", "memory_v1", "memory_v2"]
    torch.testing.assert_close(loss.params, torch.tensor([3, 0.5, -1, -1, 0.25]))
    bound = (3 / 6) ** 0.5
    for bank in loss.memory_v1, loss.memory_v2:
        assert bank.shape == (10, 6)
        assert 0.5 * bound < bank.abs().max() <= bound
    loss(S.float(), T.float(), OWN)
    other = CRDLoss(**OPTIONS, temperature=0.5, momentum=0.25)
    other.load_state_dict(loss.state_dict())
    batch = T.float(), S.float(), (OWN, CONTRAST)
    torch.testing.assert_close(other(*batch), loss(*batch))


def test_forms_of_samples() -> None:
    pairs = list(zip(OWN, CONTRAST, strict=True))
    expected = build()(S, T, (OWN, CONTRAST))
    for form in (
        [OWN, CONTRAST],
        torch.cat([OWN[:, None], CONTRAST], dim=1),
        {"sample_idx": OWN, "contrast_sample_idxs": CONTRAST},
        [{"sample_idx": i, "contrast_sample_idxs": others} for i, others in pairs],
        [SimpleNamespace(sample_idx=i, contrast_sample_idxs=others) for i, others in pairs],
        tuple(SimpleNamespace(sample_idx=int(i), contrast_sample_idxs=others.tolist()) for i, others in pairs),
    ):
        torch.testing.assert_close(build()(S, T, form), expected)


@pytest.mark.parametrize(
    "form", [OWN, OWN.int(), {"sample_idx": OWN.reshape(4, 1)}, (OWN, None), [{"sample_idx": i} for i in OWN]]
)
def test_negatives_are_drawn_from_all_samples(form: Any) -> None:
    drawn = []
    loss = build(neg_num=200)
    inner = loss._contrast
    loss._contrast = lambda features, bank, contrast, place: (
        drawn.append(contrast)
        or inner(  # type: ignore[method-assign]
            features, bank, contrast, place
        )
    )
    loss(S, T, form)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0][:, 0], OWN)
    assert drawn[0].shape == (4, 201)
    assert set(drawn[0][:, 1:].flatten().tolist()) == set(range(10))


def test_differentiable() -> None:
    loss = build(temperature=0.5)
    loss(S, T, (OWN, CONTRAST))  # the constants are no function of what comes next
    assert_differentiable(lambda s, t: copy.deepcopy(loss)(s, t, (OWN, CONTRAST)), T, S)


def test_an_empty_batch_leaves_the_state_alone() -> None:
    loss = build()
    before = copy.deepcopy(loss.state_dict())
    assert_costs_nothing(loss, S[:0], T[:0], OWN[:0])
    assert loss(S[:0], T[:0], OWN[:0]).shape == (1,)
    torch.testing.assert_close(dict(loss.state_dict()), dict(before))


def test_features_of_zeros_stay_finite() -> None:
    loss = build(momentum=0)
    for _ in range(2):
        assert_finite(loss, 0 * S, 0 * T, OWN)
        assert loss.memory_v1.isfinite().all()


def test_the_weight() -> None:
    with pytest.warns(SpecWarning, match=r"^CRDLoss: loss_weight 0\.8 does nothing, as in MMRazor; compat=False gives"):
        loss = build(loss_weight=0.8)
    plain = build()(S, T, (OWN, CONTRAST))
    torch.testing.assert_close(loss(S, T, (OWN, CONTRAST)), plain)
    torch.testing.assert_close(build(loss_weight=0.8, compat=False)(S, T, (OWN, CONTRAST)), 0.8 * plain)


@pytest.mark.parametrize(
    "name", ["loss_weight", "temperature", "neg_num", "sample_n", "dim_out", "momentum", "eps", "compat"]
)
def test_wrong_options(name: str) -> None:
    with pytest.raises(SpecError, match=f"CRDLoss: {name} is 'a'; it (must be a|can be)"):
        CRDLoss(**{**OPTIONS, name: "a"})


def test_wrong_features() -> None:
    with pytest.raises(SpecError, match=r"t_feats has shape \(4, 5\); they must be equal"):
        build()(S, T[:, :5], OWN)
    with pytest.raises(SpecError, match=r"s_feats has shape \(2, 2, 6\); it takes features \(N, dim_out\)"):
        build()(S.reshape(2, 2, 6), T.reshape(2, 2, 6), OWN)
    with pytest.raises(SpecError, match=r"dim_out is 6, but s_feats has shape \(4, 5\)"):
        build()(S[:, :5], T[:, :5], OWN)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (None, r"data_samples is nothing; it takes a tensor of sample indices \(N,\)"),
        ([], "data_samples is a list, an empty one; it takes"),
        ("0123", "data_samples is a str; it takes"),
        ([OWN], "data_samples is 1 tensors; it takes"),
        ({"index": OWN}, "data_samples has a dict without 'sample_idx'"),
        ([SimpleNamespace(sample_idx=1, contrast_sample_idxs=OWN), object()], "has a object without 'sample_idx'"),
        (OWN[:3], r"the sample indices are torch.int64 of shape \(3,\); 4 samples have one index each"),
        (OWN.double(), "the sample indices are torch.float64"),
        ((OWN, CONTRAST[:, :3]), r"the contrast indices have shape \(4, 3\); neg_num 3 wants \(4, 4\)"),
    ],
)
def test_wrong_samples(samples: Any, message: str) -> None:
    with pytest.raises(SpecError, match=f"CRDLoss: .*{message}"):
        build()(S, T, samples)
