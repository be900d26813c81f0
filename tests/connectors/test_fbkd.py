"""Tests of fxkd/connectors/fbkd.py and of the non-local block inside."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxkd.connectors import FBKDStudentConnector, FBKDTeacherConnector
from fxkd.connectors._non_local import MODES
from fxkd.errors import SpecError, SpecWarning
from fxkd.losses import FBKDLoss
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
    with_known_parameters,
)
from tests.golden import assert_golden, cosine, sine

SIDES: list[Any] = [FBKDStudentConnector, FBKDTeacherConnector]
S8, T8 = sine(2, 8, 8, 8), cosine(2, 8, 8, 8)


def built(cls: Any, channels: int = 8, **more: Any) -> Any:
    """Build without the warning of the double pooling, which has a test of its own."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpecWarning)
        return cls(channels, **more)


def loss_by_hand(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    mask = (student[0] + teacher[0]) / 2
    return (
        7e-5 * ((teacher[4] - student[5]).square() * mask).sum().sqrt()
        + 4e-3 * (teacher[4].mean((2, 3)) - student[2]).norm()
        + 4e-3 * (teacher[2] - student[3]).norm()
        + 7e-5 * (teacher[3] - student[4]).norm()
    )


@pytest.mark.parametrize(("sub_sample", "loss"), [(False, 0.0127966907), (True, 0.0128408925)])
def test_golden(sub_sample: bool, loss: float) -> None:
    student = with_known_parameters(built(FBKDStudentConnector, sub_sample=sub_sample))(S8)
    teacher = with_known_parameters(built(FBKDTeacherConnector, sub_sample=sub_sample))(T8)
    assert_golden(loss_by_hand(student, teacher), loss)
    assert_golden(FBKDLoss()(student, teacher), loss)
    sums = [value.sum().item() for value in (*student, *teacher)]
    of_student = [128, 16, 0.29555636, 12.7999595, 23.00214852, 18.91560695]
    of_teacher = [128, 16, -0.13910814, 17.80878771, -1.11286508]
    assert sums == pytest.approx([*of_student, *of_teacher], rel=0, abs=1e-7)


def non_local(block: Any, mode: str, pool: int) -> Callable[[Tensor], Tensor]:
    """Write the block with one loop over all pairs of positions."""

    def pointwise(layer: Any, x: Tensor) -> Tensor:
        return torch.einsum("oi,nihw->nohw", layer.conv.weight[:, :, 0, 0], x) + layer.conv.bias.reshape(1, -1, 1, 1)

    def pooled(x: Tensor) -> list[Tensor]:
        rows, columns = x.shape[2] // pool, x.shape[3] // pool
        x = x[:, :, : rows * pool, : columns * pool].unflatten(3, (columns, pool)).unflatten(2, (rows, pool))
        return list(x.amax((3, 5)).flatten(2).unbind(2))

    def score(query: Tensor, key: Tensor) -> Tensor:
        if mode == "concatenation":
            return (torch.cat([query, key], 1) * block.concat_project.conv.weight.flatten()).sum(1).clamp(min=0)
        product = (query * key).sum(1)
        return product / query.shape[1] ** 0.5 if mode == "embedded_gaussian" else product

    def formula(x: Tensor) -> Tensor:
        values = pooled(pointwise(block.g, x))
        keys = pooled(x if mode == "gaussian" else pointwise(block.phi, x))
        queries = (x if mode == "gaussian" else pointwise(block.theta, x)).flatten(2).unbind(2)
        scores = torch.stack([torch.stack([score(q, k) for k in keys], 1) for q in queries], 1)
        weights = scores.exp() / scores.exp().sum(2, keepdim=True) if "gaussian" in mode else scores / len(keys)
        mixed = torch.einsum("nqk,nck->ncq", weights, torch.stack(values, 2)).reshape(x.shape[0], -1, *x.shape[2:])
        return x + block.conv_out(mixed)

    return formula


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pool", [1, 3])
def test_every_mode_of_the_non_local_block(mode: str, pool: int) -> None:
    more = {"sub_sample": True, "maxpool_stride": pool, "compat": False} if pool > 1 else {}
    block = with_known_parameters(built(FBKDTeacherConnector, 4, mode=mode, norm_cfg=None, **more)).teacher_non_local
    assert_agrees(block, non_local(block, mode, pool), sine(2, 4, 5, 4))


def test_agrees() -> None:
    connector = with_known_parameters(built(FBKDStudentConnector, 4, spatial_T=0.7, channel_T=0.3))
    block = non_local(connector.student_non_local, "dot_product", 1)

    def masks(x: Tensor) -> tuple[Tensor, Tensor]:
        spatial, channel = (x.abs().mean(1, keepdim=True) / 0.7).exp(), (x.abs().mean((2, 3), True) / 0.3).exp()
        return 12 * spatial / spatial.sum((2, 3), True), 4 * channel / channel.sum(1, True)

    def formula(x: Tensor) -> tuple[Tensor, ...]:
        linear, conv = connector.channel_wise_adaptation, connector.spatial_wise_adaptation
        return (
            *masks(x),
            x.mean((2, 3)) @ linear.weight.mT + linear.bias,
            F.conv2d(x.mean(1, keepdim=True), conv.weight, conv.bias, padding=1),
            connector.non_local_adaptation(block(x)),
            connector.adaptation_layers(x),
        )

    assert_agrees(connector, formula, sine(2, 4, 3, 4))
    teacher = with_known_parameters(built(FBKDTeacherConnector, 4, spatial_T=0.7, channel_T=0.3))
    block = non_local(teacher.teacher_non_local, "dot_product", 1)
    assert_agrees(teacher, lambda x: (*masks(x), x.mean(1, keepdim=True), block(x), x), sine(2, 4, 3, 4))


def test_scale_can_be_left_out() -> None:
    scaled, plain = (built(FBKDTeacherConnector, mode="embedded_gaussian", use_scale=use) for use in (True, False))
    assert scaled.teacher_non_local.scale == 0.5
    assert plain.teacher_non_local.scale == 1.0


@pytest.mark.parametrize("cls", SIDES)
@pytest.mark.parametrize("norm_cfg", [{"type": "BN"}, None])
def test_initial_values(cls: Any, norm_cfg: Any) -> None:
    connector = built(cls, norm_cfg=norm_cfg)
    block = next(part for name, part in connector.named_children() if name.endswith("non_local"))
    torch.testing.assert_close(block(S8.float()), S8.float(), rtol=0, atol=0)  # the identity at the start
    assert block.g.conv.weight.std().item() == pytest.approx(0.01, rel=0.4)
    assert not block.theta.conv.bias.any()
    block = built(cls, norm_cfg=norm_cfg, zeros_init=False)
    assert not torch.equal(block(S8.float())[-2], connector(S8.float())[-2])


def test_names() -> None:
    block = [f"{part}.conv.{kind}" for part in ("g", "theta", "phi") for kind in ("weight", "bias")]
    block += ["conv_out.conv.weight", "conv_out.bn.weight", "conv_out.bn.bias"]
    names = [name for name, _ in built(FBKDTeacherConnector).named_parameters()]
    assert names == [f"teacher_non_local.{name}" for name in block]
    names = [name for name, _ in built(FBKDStudentConnector).named_parameters() if "non_local." not in name]
    parts = ("channel_wise_adaptation", "spatial_wise_adaptation", "non_local_adaptation", "adaptation_layers")
    assert names == [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    without = built(FBKDTeacherConnector, norm_cfg=None, mode="concatenation").state_dict()
    assert "teacher_non_local.conv_out.conv.bias" in without
    assert without["teacher_non_local.concat_project.conv.weight"].shape == (1, 8, 1, 1)
    assert built(FBKDTeacherConnector, 2, reduction=8).state_dict()["teacher_non_local.g.conv.weight"].shape[0] == 1


@pytest.mark.parametrize("cls", SIDES)
def test_double_pooling_warns_once_and_can_be_switched_off(cls: Any) -> None:
    name = cls.__name__
    with pytest.warns(SpecWarning, match=rf"^{name}: sub_sample pools by 6, twice the maxpool_stride of 3,") as caught:
        twice = cls(8, sub_sample=True, maxpool_stride=3)
    assert len(caught) == 1
    assert "'compat: false' pools by 3" in str(caught[0].message)
    once = cls(8, sub_sample=True, maxpool_stride=6, compat=False)  # a warning would be an error
    once.load_state_dict(twice.state_dict())
    for connector in once, twice:
        with_known_parameters(connector)
    for one, other in zip(once(S8), twice(S8), strict=True):
        torch.testing.assert_close(one, other)
    cls(8, maxpool_stride=3)


@pytest.mark.parametrize("cls", SIDES)
def test_conduct(cls: Any) -> None:
    connector = with_known_parameters(built(cls, 8, sub_sample=True)).float()
    assert_layout_does_not_count(connector, S8.float())
    assert_unchanged(connector, S8.float())
    assert_finite_in_half(connector, S8)


@pytest.mark.parametrize("cls", SIDES)
@pytest.mark.parametrize("mode", ["dot_product", "gaussian", "concatenation"])
def test_compiles(cls: Any, mode: str) -> None:
    connector = with_known_parameters(built(cls, 4, sub_sample=True, mode=mode)).eval()
    assert_compiles(connector, sine(4, 4, 4, 4))


def test_the_teachers_block_is_trained() -> None:
    connector = with_known_parameters(built(FBKDTeacherConnector))
    connector(T8)[3].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in connector.parameters())


@pytest.mark.parametrize("cls", SIDES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, r"in_channels is 0; it must be a whole number above 0"),
        ({"reduction": 0.5}, r"reduction is 0\.5; it must be a whole number"),
        ({"maxpool_stride": None}, r"maxpool_stride is None; it must be a whole number"),
        ({"mode": "dot"}, r"mode is 'dot'; it can be 'dot_product', 'embedded_gaussian', 'gaussian', 'concatenation'"),
        ({"sub_sample": 1}, r"sub_sample is 1; it must be true or false"),
        ({"zeros_init": None}, r"zeros_init is None; it must be true or false"),
        ({"compat": "no"}, r"compat is 'no'; it must be true or false"),
        ({"spatial_T": 0}, r"spatial_T is 0; a temperature must be above 0"),
        ({"channel_T": "5e-1"}, r"channel_T is '5e-1'; it must be a number\. YAML"),
        ({"conv_cfg": {"type": "DCN"}}, r"conv_cfg: type is 'DCN'; it can be Conv"),
        ({"norm_cfg": {"type": "Bn"}}, r"norm_cfg: type is 'Bn'; .* Did you mean 'BN'"),
        ({"init_cfg": 1}, r"init_cfg is 1; it can only be None"),
    ],
)
def test_wrong_options(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^{cls.__name__}: {message}"):
        cls(**({"in_channels": 8} | options))


@pytest.mark.parametrize("cls", SIDES)
def test_wrong_features(cls: Any) -> None:
    with pytest.raises(SpecError, match=rf"^{cls.__name__}: feature has shape \(2, 4, 8, 8\); .* be in_channels, 8\."):
        built(cls)(torch.zeros(2, 4, 8, 8))
    small = built(cls, sub_sample=True, maxpool_stride=4)
    with pytest.raises(SpecError, match=rf"^{cls.__name__}: the feature is 4x16 and is pooled by 8; take a smaller"):
        small(torch.zeros(2, 8, 4, 16))
