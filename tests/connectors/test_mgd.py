"""Tests of fxkd/connectors/mgd.py."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxkd.connectors import MGDConnector
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
    with_known_parameters,
)
from tests.golden import S4, sine

MASK = (sine(3, 1, 2, 5) > 0).double()


def small(student: int = 4, teacher: int = 6, **more: Any) -> MGDConnector:
    torch.manual_seed(0)
    return MGDConnector(student, teacher, **more)


class Masked(torch.nn.Module):
    """The connector with a mask of ours."""

    def __init__(self, connector: MGDConnector, mask: Tensor) -> None:
        super().__init__()
        self.connector, self.mask = connector, mask

    def forward(self, feature: Tensor) -> Tensor:
        return self.connector(feature, self.mask[: feature.shape[0]])


def by_hand(connector: MGDConnector, mask: Tensor) -> Any:
    first, _, last = connector.generation

    def formula(x: Tensor) -> Tensor:
        if connector.align is not None:
            weight, bias = connector.align.weight[:, :, 0, 0], connector.align.bias
            x = torch.einsum("oi,nihw->nohw", weight, x) + bias.reshape(1, -1, 1, 1)
        hidden = F.conv2d(x * mask, first.weight, first.bias, padding=1).clamp(min=0)
        return F.conv2d(hidden, last.weight, last.bias, padding=1)

    return formula


@pytest.mark.parametrize("teacher", [4, 6])
@pytest.mark.parametrize("mask", [MASK, torch.ones(3, 1, 2, 5), torch.zeros(3, 1, 2, 5)])
def test_agrees(teacher: int, mask: Tensor) -> None:
    connector = with_known_parameters(small(4, teacher))
    assert_agrees(Masked(connector, mask), by_hand(connector, mask), S4)


@pytest.mark.parametrize("on_channel", [False, True])
def test_the_drawn_mask(on_channel: bool) -> None:
    connector = small(4, 6, mask_on_channel=on_channel, lambda_mgd=0.3)
    torch.manual_seed(3)
    mask = connector.draw_mask(torch.zeros(200, 6, 20, 20))
    torch.manual_seed(3)
    shape = (200, 6, 1, 1) if on_channel else (200, 1, 20, 20)
    assert torch.equal(mask, torch.rand(shape) <= 0.7)
    assert mask.double().mean().item() == pytest.approx(0.7, abs=0.03)


def test_the_mask_is_drawn_where_the_feature_is() -> None:
    assert small().draw_mask(torch.empty(2, 6, 3, 3, device="meta")).device.type == "meta"


def test_a_new_mask_at_every_call_in_eval_mode_too() -> None:
    connector = small().eval()
    torch.manual_seed(1)
    first, second = connector(S4.float()), connector(S4.float())
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    torch.testing.assert_close(connector(S4.float()), first)


@pytest.mark.parametrize(("share", "seen"), [(0.0, 1.0), (1.0, 0.0), (0, 1.0), (1, 0.0)])
def test_all_and_nothing(share: float, seen: float) -> None:
    connector = small(4, 4, lambda_mgd=share)
    torch.testing.assert_close(connector(S4.float()), connector(S4.float(), torch.full((3, 1, 1, 1), seen)))


def test_names() -> None:
    names = [f"{part}.{kind}" for part in ("generation.0", "generation.2") for kind in ("weight", "bias")]
    assert list(small(4, 4).state_dict()) == names
    assert list(small(4, 6).state_dict()) == ["align.weight", "align.bias", *names]
    assert small(4, 6).state_dict()["align.weight"].shape == (6, 4, 1, 1)


def test_conduct() -> None:
    assert_layout_does_not_count(Masked(small(), MASK.float()), S4.float())
    assert_unchanged(small(4, 4, lambda_mgd=0), S4.float())
    assert_finite_in_half(small(), S4)
    assert_compiles(Masked(small().double(), MASK), S4)


def test_the_draw_compiles() -> None:
    connector = small()
    compiled = torch.compile(connector, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    expected = connector(S4.float())
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(S4.float()), expected)
    assert not torch.equal(compiled(S4.float()), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_channels": 0}, r"student_channels is 0; it must be a whole number above 0"),
        ({"teacher_channels": "6"}, r"teacher_channels is '6'; it must be a whole number"),
        ({"lambda_mgd": 1.5}, r"lambda_mgd is 1\.5; a share is from 0 to 1\."),
        ({"lambda_mgd": float("nan")}, r"lambda_mgd is nan; it must be a number"),
        ({"lambda_mgd": "65e-2"}, r"lambda_mgd is '65e-2'; it must be a number\. YAML reads 1e-3 as text"),
        ({"mask_on_channel": 1}, r"mask_on_channel is 1; it must be true or false"),
        ({"init_cfg": 1}, r"init_cfg is 1; it can only be None"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^MGDConnector: {message}"):
        MGDConnector(**({"student_channels": 4, "teacher_channels": 6} | options))


def test_wrong_features() -> None:
    with pytest.raises(
        SpecError, match=r"^MGDConnector: feature has shape \(3, 6, 2, 5\); .* be student_channels, 4\."
    ):
        small()(torch.zeros(3, 6, 2, 5))
