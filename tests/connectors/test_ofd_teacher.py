"""Tests of fxkd/connectors/ofd_teacher.py."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxkd.connectors import OFDTeacherConnector
from fxkd.connectors.ofd_teacher import overhaul_margin
from fxkd.errors import SpecError
from tests.connectors.conduct import assert_layout_does_not_count, marked
from tests.golden import T4


def norm(weight: list[float], bias: list[float], dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(weight)).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def adapted() -> OFDTeacherConnector:
    connector = OFDTeacherConnector()
    connector.adapt(norm([1, 0.5, -2, 0.1], [0, 1, -0.3, 5]))
    return connector


def test_golden_margin() -> None:
    margin = overhaul_margin(norm([1, 0.5, -2, 0.1], [0, 1, -0.3, 5]))
    assert margin.shape == (1, 4, 1, 1)
    expected = torch.tensor([-0.79788456, -0.18660777, -1.70981722, -0.3], dtype=torch.float64)
    torch.testing.assert_close(margin.flatten(), expected, rtol=0, atol=1e-8)


def test_the_margin_is_the_mean_of_what_is_negative() -> None:
    draws = torch.randn(2_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for weight, bias in (1.0, 0.0), (-2.0, -0.3), (0.5, 0.9), (1.0, -4.0):
        values = weight * draws + bias
        expected = values[values < 0].mean()
        torch.testing.assert_close(overhaul_margin(norm([weight], [bias])).squeeze(), expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_scale_of_zero(dtype: torch.dtype) -> None:
    margin = overhaul_margin(norm([0, 0, 0], [2, 0, -2], dtype)).flatten()
    torch.testing.assert_close(margin.double(), torch.tensor([0, 0, -2.0], dtype=torch.float64), rtol=0, atol=1e-30)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_normalisation_without_weights(tracked: bool) -> None:
    margin = overhaul_margin(nn.BatchNorm2d(3, affine=False, track_running_stats=tracked))
    torch.testing.assert_close(margin.flatten(), torch.full((3,), -0.79788456))


def test_agrees() -> None:
    connector = adapted()
    margin = connector.margin
    assert margin is not None
    feature = (2 * T4).requires_grad_()
    output = connector(feature)
    torch.testing.assert_close(output, torch.where(feature > margin, feature, margin).detach())
    assert (output != feature).any()
    assert not output.requires_grad


def test_the_margin_moves_along_and_is_in_no_state_dict() -> None:
    connector = adapted()
    assert list(connector.state_dict()) == []
    assert dict(connector.named_buffers())["margin"].dtype == torch.float64
    assert connector.float().margin.dtype == torch.float32
    assert connector.to("meta").margin.device.type == "meta"


def test_copies_keep_the_margin() -> None:
    connector = adapted()
    file = io.BytesIO()
    torch.save(connector, file)
    file.seek(0)
    for other in copy.deepcopy(connector), torch.load(file, weights_only=False):
        torch.testing.assert_close(other(T4), connector(T4))
        assert list(other.state_dict()) == []


def test_the_margin_is_a_copy() -> None:
    layer, connector = norm([1], [0]), OFDTeacherConnector()
    connector.adapt(layer)
    with torch.no_grad():
        layer.bias.fill_(9)
    assert connector.margin.item() == pytest.approx(-0.79788456)
    assert not connector.margin.requires_grad


def test_synchronised_normalisation_and_a_margin_by_hand() -> None:
    connector = OFDTeacherConnector()
    connector.adapt(nn.SyncBatchNorm(4))
    torch.testing.assert_close(connector.margin, torch.full((1, 4, 1, 1), -0.79788456))
    connector.init_margin(torch.tensor(-0.25))
    torch.testing.assert_close(connector(T4), T4.clamp(min=-0.25))


def test_conduct() -> None:
    assert_layout_does_not_count(adapted(), 2 * T4)
    output = adapted()(T4.bfloat16())
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


def test_compiles() -> None:
    connector = adapted()
    compiled = torch.compile(connector, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in T4, T4[:2].clone():
            torch.testing.assert_close(compiled(marked(batch)), connector(batch))


def test_a_margin_that_is_not_set() -> None:
    with pytest.raises(SpecError, match=r"^OFDTeacherConnector: the margin is not set; call adapt with the teacher's"):
        OFDTeacherConnector()(T4)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.GroupNorm(2, 4), nn.BatchNorm1d(4)])
def test_no_batch_normalisation(module: nn.Module) -> None:
    name = type(module).__name__
    with pytest.raises(SpecError, match=rf"comes from a BatchNorm2d or a SyncBatchNorm, not from a {name}; record the"):
        OFDTeacherConnector().adapt(module)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (torch.zeros(2, 3, 1, 1), r"feature has shape \(2, 3, 1, 1\); the margin is for 4 channels: was it made of"),
        (torch.zeros(2, 4), r"feature has shape \(2, 4\); it takes a map"),
        ([T4], r"feature is a list, not a tensor"),
    ],
)
def test_wrong_features(feature: Tensor, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^OFDTeacherConnector: {message}"):
        adapted()(feature)


@pytest.mark.parametrize(("options", "message"), [({"init_cfg": 1}, r"init_cfg is 1; it can only be None")])
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^OFDTeacherConnector: {message}"):
        OFDTeacherConnector(**options)
    with pytest.raises(SpecError, match=r"^OFDTeacherConnector: margin is a float, not a tensor"):
        OFDTeacherConnector().init_margin(-0.5)  # type: ignore[arg-type]
