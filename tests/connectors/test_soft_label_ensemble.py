"""Tests of fxkd/connectors/soft_label_ensemble.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fxkd import connectors
from fxkd.connectors import SoftLabelEnsemble
from fxkd.errors import SpecError
from fxkd.losses import KLDivergence
from tests.connectors.conduct import marked
from tests.golden import S2, S4, T2, T4, sine

THIRD = 3 * sine(4, 6).flip(0)


def mean_of_softmaxes(teachers: list[Tensor], tau: float, shares: list[float]) -> Tensor:
    return sum(share * (t / tau).softmax(1) for share, t in zip(shares, teachers, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("tau", [1.0, 4])
@pytest.mark.parametrize(
    ("weights", "shares"), [(None, [1 / 3] * 3), ([1, 1, 2], [0.25, 0.25, 0.5]), ([0.5, 0, 0.5], [0.5, 0, 0.5])]
)
def test_agrees(tau: float, weights: list[float] | None, shares: list[float]) -> None:
    teachers = [S2, T2, THIRD]
    expected = mean_of_softmaxes(teachers, tau, shares)
    logits = connectors.build({"type": "SoftLabelEnsemble", "tau": tau, "weights": weights})(teachers)
    torch.testing.assert_close((logits / tau).softmax(1), expected)
    torch.testing.assert_close(logits, tau * expected.log())


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_gradients(weights: list[float] | None) -> None:
    inputs = S2.clone().requires_grad_(), T2.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: SoftLabelEnsemble(2.0, weights)([a, b]), inputs)


def test_one_teacher_is_itself() -> None:
    torch.testing.assert_close(SoftLabelEnsemble(3.0)((S2,)).softmax(1), S2.softmax(1))


def test_a_loss_of_the_ensemble_is_that_of_the_mean() -> None:
    found = KLDivergence(tau=4)(S2, SoftLabelEnsemble(tau=4)([T2, THIRD]))
    p = mean_of_softmaxes([T2, THIRD], 4, [0.5, 0.5])
    torch.testing.assert_close(found, 16 * (p * (p.log() - (S2 / 4).log_softmax(1))).sum() / 4)


def test_maps() -> None:
    found = SoftLabelEnsemble()([S4, T4])
    torch.testing.assert_close(found.exp(), (S4.softmax(1) + T4.softmax(1)) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_great_logits_stay_finite(dtype: torch.dtype) -> None:
    one = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype, requires_grad=True)
    found = SoftLabelEnsemble(weights=[1, 0])([one, -one])
    found.sum().backward()
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert one.grad is not None
    assert one.grad.isfinite().all()


def test_compiles() -> None:
    ensemble = SoftLabelEnsemble(2.0, [1, 3])
    compiled = torch.compile(ensemble, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in 4, 3:
            batch = [S2[:rows].clone(), T2[:rows].clone()]
            torch.testing.assert_close(compiled([marked(part) for part in batch]), ensemble(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, r"tau is 0; a temperature must be above 0"),
        ({"tau": "4"}, r"tau is '4'; it must be a number"),
        ({"weights": 3}, r"weights is 3; give a list of one number for each teacher"),
        ({"weights": []}, r"weights is \[\]; give a list of one number for each teacher"),
        ({"weights": "11"}, r"weights is '11'; give a list"),
        ({"weights": [1, "1"]}, r"weights\[1\] is '1'; it must be a number"),
        ({"weights": [1, -1]}, r"weights is \[1, -1\]; give numbers of 0 or more, not all 0"),
        ({"weights": [0, 0]}, r"weights is \[0, 0\]; give numbers of 0 or more, not all 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^SoftLabelEnsemble: {message}"):
        SoftLabelEnsemble(**options)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (S2, r"feature is a Tensor; it takes a list of the teachers' logits"),
        ([S2, None], r"feature is a list; it takes a list of the teachers' logits"),
        ([], r"the shapes of the logits are none; they must be one"),
        ([S2, S2[:, :5]], r"the shapes of the logits are \(4, 6\), \(4, 5\); they must be one and the same"),
        ([S2[0], S2[0]], r"the shapes of the logits are \(6,\), \(6,\); they must be"),
        ([S2, S2, S2], r"there are 2 weights and the logits of 3 teachers"),
    ],
)
def test_wrong_features(feature: Any, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^SoftLabelEnsemble: {message}"):
        SoftLabelEnsemble(weights=[1, 1])(feature)
