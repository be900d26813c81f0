"""Pairs with several losses, a head, a part of a dimension, one of several teachers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import SpecError
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
WIDEN = {"type": "LinearConnector", "in_features": 3, "out_features": 5}


def net(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def batch() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def prepared(pair: dict[str, Any], backend: str = "graph", teacher: Any = None) -> fxkd.Distiller:
    spec = {"pairs": [{"student": "0", "teacher": "0"} | pair]}
    return fxkd.prepare(net(3), teacher or net(5), spec, example_inputs=(batch(),), backend=backend)  # type: ignore[arg-type]


@BACKENDS
def test_several_losses_read_the_same_values(backend: str) -> None:
    pair = {"losses": [{"type": "L1Loss"}, {"type": "L2Loss", "normalize": False}], "student_connector": WIDEN}
    distiller = prepared(pair, backend)
    assert list(distiller.spec.student_recorders) == ["0"]
    assert list(distiller.connectors) == ["loss_0_student"]
    difference = distiller.connectors.loss_0_student(net(3)[0](batch())) - net(5)[0](batch())
    expected = {"loss_0": difference.abs().mean(), "loss_0_2": difference.square().sum() / 6}
    assert_same(distiller(batch()).losses, expected)


@BACKENDS
def test_a_head_owns_its_connectors(backend: str) -> None:
    head = {"type": "FeatureDistillationHead", "loss": {"type": "L1Loss", "loss_weight": 2}, "stu_connector": WIDEN}
    distiller = prepared({"head": head}, backend)
    assert not distiller.connectors
    out = distiller(batch())
    widen = distiller.losses.loss_0.stu_connector
    assert_same(out.loss, 2 * (widen(net(3)[0](batch())) - net(5)[0](batch())).abs().mean())
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in distiller.losses.parameters())


@fxkd.head("ScaledHeadOfPairs")
class ScaledHead(nn.Module):
    """A head of one's own, with a weight that trains."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, s_feat: Tensor, t_feat: Tensor) -> Tensor:
        return (s_feat * self.scale - t_feat).square().mean()


@BACKENDS
def test_a_head_of_ones_own(backend: str) -> None:
    distiller = prepared({"head": {"type": "ScaledHeadOfPairs", "width": 3, "loss_weight": 0.5}}, backend, net(3))
    out = distiller(batch())
    assert_same(out.loss, torch.zeros(()))
    distiller = prepared({"head": ScaledHead(2), "student": "2", "teacher": "2"}, backend)
    assert_same(distiller(batch()).loss, (net(3)(batch()) - net(5)(batch())).square().mean())


@BACKENDS
@pytest.mark.parametrize("part", [{"start": 1, "stop": 3}, {"index": -1}, {"stop": 2}])
def test_a_part_of_a_dimension(part: dict[str, int], backend: str) -> None:
    distiller = prepared({"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1, **part}}, backend)
    place: Any = part["index"] if "index" in part else slice(part.get("start"), part.get("stop"))
    student, teacher = net(3)[0](batch()), net(5)[0](batch())
    assert_same(distiller(batch()).loss, (student[:, place] - teacher[:, place]).abs().mean())


def test_a_connector_comes_behind_the_part() -> None:
    connector = {"type": "LinearConnector", "in_features": 2, "out_features": 2}
    pair = {"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1, "stop": 2}, "student_connector": connector}
    distiller = prepared(pair)
    student, teacher = net(3)[0](batch())[:, :2], net(5)[0](batch())[:, :2]
    expected = (distiller.connectors.loss_0_student[1](student) - teacher).abs().mean()
    assert_same(distiller(batch()).loss, expected)


def test_one_of_several_teachers() -> None:
    teachers = {"a": net(5), "b": net(3)}
    distiller = prepared({"loss": {"type": "L1Loss"}, "from_teacher": "b"}, teacher=teachers)
    assert distiller.spec.teacher_recorders["0"].source == "b.0"
    assert_same(distiller(batch()).loss, torch.zeros(()))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"loss": {"type": "L1Loss"}, "losses": []}, r"pairs\[0\]: has 'loss' and 'losses'; give one of them"),
        ({"losses": []}, r"pairs\[0\].losses: is \[\]; give a list of losses"),
        ({"losses": [{"type": "L1Los"}]}, r"pairs\[0\].losses\[0\].type: .*Did you mean 'L1Loss'"),
        ({"head": {"type": "FeatureHead"}}, r"pairs\[0\].head.type: no loss is called 'FeatureHead'"),
        ({"loss": {"type": "L1Loss"}, "dim_select": 3}, r"pairs\[0\].dim_select: is 3; give a mapping"),
        ({"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1}}, r"dim_select: .*takes either 'index', or 'start'"),
        ({"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1, "idx": 2}}, r"dim_select: SelectConnector: .*'idx'"),
        (
            {"loss": {"type": "L1Loss"}, "dim_select": {"dim": "1", "index": 2}},
            r"dim is '1'; it must be a whole number",
        ),
        (
            {"loss": {"type": "L1Loss"}, "dim_select": {"dim": 3, "index": 2}},
            r"dim is 3; the feature has shape \(6, 3\)",
        ),
        ({"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1, "index": 9}}, r"index is 9; the feature has shape"),
        (
            {"loss": {"type": "L1Loss"}, "dim_select": {"dim": 1, "index": 0}, "student_connector": "auto"},
            r"pairs\[0\].student_connector: is 'auto', which knows no 'dim_select'",
        ),
        ({"loss": {"type": "L1Loss"}, "from_teacher": 3}, r"pairs\[0\].from_teacher: is 3; give the name of a teacher"),
        ({"head": {"type": "FeatureDistillationHead", "loss": []}}, r"loss is an empty list"),
    ],
)
def test_what_no_pair_can_be(pair: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        prepared(pair)
