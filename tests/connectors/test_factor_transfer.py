"""Tests of fxkd/connectors/paraphraser.py and translator.py."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxkd import connectors
from fxkd.connectors import Paraphraser, Translator
from fxkd.errors import SpecError
from tests.connectors.conduct import (
    assert_agrees,
    assert_compiles,
    assert_finite_in_half,
    assert_layout_does_not_count,
    assert_unchanged,
    values_and_gradients,
    with_known_parameters,
)
from tests.golden import S4, assert_golden


def layers(part: nn.Sequential, x: Tensor, transposed: bool = False) -> Tensor:
    """Run a stack from its state dict by plain functions; batch statistics by hand."""
    state = dict(part.named_parameters())
    for index in (0, 3, 6):
        conv = F.conv_transpose2d if transposed else F.conv2d
        x = conv(x, state[f"{index}.weight"], state[f"{index}.bias"], padding=1)
        if f"{index + 1}.weight" in state:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            scale, shift = (state[f"{index + 1}.{name}"].reshape(1, -1, 1, 1) for name in ("weight", "bias"))
            x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
        x = torch.where(x > 0, x, 0.1 * x)
    return x


def test_golden() -> None:
    train = with_known_parameters(Paraphraser(4, 6, phase="train"))(S4)
    assert train.shape == (3, 6, 2, 5)
    assert_golden(train.sum(), 4.8473232700)
    pretrain = with_known_parameters(Paraphraser(4, 6))(S4)
    assert pretrain.shape == (3, 4, 2, 5)
    assert_golden(pretrain.sum(), 4.1984923227)
    assert_golden(with_known_parameters(Translator(4, 6))(S4).sum(), 5.6414939189)


@pytest.mark.parametrize("use_bn", [False, True])
def test_agrees(use_bn: bool) -> None:
    torch.manual_seed(0)
    translator = Translator(4, 6, use_bn=use_bn).double()
    assert_agrees(translator, lambda x: layers(translator.encoder, x), S4)
    paraphraser = Paraphraser(4, 6, use_bn=use_bn).double()
    assert_agrees(paraphraser, lambda x: layers(paraphraser.decoder, layers(paraphraser.encoder, x), True), S4)
    frozen = Paraphraser(4, 6, phase="train", use_bn=use_bn).double()
    torch.testing.assert_close(frozen(S4), layers(frozen.encoder, S4))


def test_names_stay_with_and_without_normalisation() -> None:
    names = [name for name, _ in Translator(4, 6, use_bn=False).named_parameters()]
    assert names == [f"encoder.{index}.{kind}" for index in (0, 3, 6) for kind in ("weight", "bias")]
    names = [name for name, _ in Paraphraser(4, 6, use_bn=True).named_parameters()]
    sides = [(part, index) for part in ("encoder", "decoder") for index in (0, 1, 3, 4, 6, 7)]
    assert names == [f"{part}.{index}.{kind}" for part, index in sides for kind in ("weight", "bias")]
    assert Paraphraser(4, 6).decoder[0].weight.shape == (6, 6, 3, 3)
    assert Paraphraser(4, 6).decoder[3].weight.shape == (6, 4, 3, 3)


def test_stage_two_takes_the_weights_of_stage_one_and_trains_nothing() -> None:
    first, second = Paraphraser(4, 6), Paraphraser(4, 6, phase="train")
    second.load_state_dict(first.state_dict())
    feature = S4.float().requires_grad_()
    factor = second(feature)
    torch.testing.assert_close(factor, first.encoder(feature).detach())
    assert not factor.requires_grad
    assert not any(parameter.requires_grad for parameter in second.parameters())
    assert all(parameter.requires_grad for parameter in first.parameters())


def both() -> list[nn.Module]:
    torch.manual_seed(0)
    return [Paraphraser(4, 6, use_bn=True), Translator(4, 6, use_bn=False)]


def test_conduct() -> None:
    for connector in both():
        assert_layout_does_not_count(connector, S4.float())
        assert_unchanged(connector, S4.float())
        assert_finite_in_half(connector, S4)


@pytest.mark.parametrize("index", [0, 1])
def test_compiles(index: int) -> None:
    assert_compiles(both()[index].double().eval(), S4)


def test_the_frozen_phase_compiles() -> None:
    connector = Paraphraser(4, 6, phase="train").double()
    compiled = torch.compile(connector, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(values_and_gradients(compiled, S4), values_and_gradients(connector, S4))


def test_found_by_name() -> None:
    assert type(connectors.build({"type": "Paraphraser", "in_channel": 4, "out_channel": 6})) is Paraphraser
    assert type(connectors.build({"type": "Translator", "in_channel": 4, "out_channel": 6})) is Translator


@pytest.mark.parametrize("cls", [Paraphraser, Translator])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channel": 0}, r"in_channel is 0; it must be a whole number above 0\."),
        ({"out_channel": 2.0}, r"out_channel is 2\.0; it must be a whole number above 0\."),
        ({"in_channel": True}, r"in_channel is True; it must be a whole number above 0\."),
        ({"use_bn": "no"}, r"use_bn is 'no'; it must be true or false\."),
        ({"init_cfg": {"type": "Pretrained"}}, r"init_cfg is \{'type': 'Pretrained'\}; it can only be None\."),
    ],
)
def test_wrong_options(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^{cls.__name__}: {message}"):
        cls(**({"in_channel": 4, "out_channel": 6} | options))


def test_wrong_phase() -> None:
    with pytest.raises(
        SpecError, match=r"^Paraphraser: phase is 'trian'; it can be 'pretrain', 'train'\. Did you mean"
    ):
        Paraphraser(4, 6, phase="trian")


@pytest.mark.parametrize("connector", both())
def test_wrong_features(connector: nn.Module) -> None:
    name = type(connector).__name__
    with pytest.raises(SpecError, match=rf"^{name}: feature has shape \(3, 5, 2, 2\); its channels .* in_channel, 4\."):
        connector(torch.zeros(3, 5, 2, 2))
    with pytest.raises(SpecError, match=rf"^{name}: feature has shape \(3, 4\); it takes a map \(N, C, H, W\)\."):
        connector(torch.zeros(3, 4))
    with pytest.raises(SpecError, match=rf"^{name}: feature is a tuple, not a tensor; pick one part of it with 'data_"):
        connector((S4, S4))
