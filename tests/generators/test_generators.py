"""Tests of fxkd/generators: against the same chain written out with functions, in float64, with gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd import generators
from fxkd.errors import SpecError
from fxkd.generators import DAFLGenerator, ZSKTGenerator
from tests.support.oracle import assert_same

SIZES: dict[str, Any] = {"img_size": 8, "latent_dim": 5, "hidden_channels": 6}
KINDS = pytest.mark.parametrize("kind", [DAFLGenerator, ZSKTGenerator])


def noise(rows: int = 4) -> Tensor:
    return torch.randn(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def made(kind: type[nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(1)
    generator = kind(**SIZES, **options).double()
    for parameter in generator.parameters():  # no weight of a norm is 1, no bias 0
        parameter.data = torch.randn_like(parameter)
    return generator


def normalised(value: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Batch normalisation in train mode, by its formula."""
    mean = value.mean((0, 2, 3), keepdim=True)
    variance = (value - mean).square().mean((0, 2, 3), keepdim=True)
    value = (value - mean) / (variance + eps).sqrt()
    if weight is None or bias is None:
        return value
    return value * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def enlarged(value: Tensor, factor: int) -> Tensor:
    return value.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def by_hand(generator: nn.Module, data: Tensor, *, eps: float, slope: float, factor: int, tanh: bool) -> Tensor:
    held = dict(generator.named_parameters())
    side = 8 // factor**2

    def norm(value: Tensor, name: str, eps: float) -> Tensor:
        return normalised(value, eps, held[f"{name}.weight"], held[f"{name}.bias"])

    def convolved(value: Tensor, name: str) -> Tensor:
        return F.conv2d(value, held[f"{name}.weight"], held[f"{name}.bias"], padding=1)

    def leaky(value: Tensor) -> Tensor:
        return torch.where(value > 0, value, slope * value)

    value = (data @ held["linear.weight"].T + held["linear.bias"]).view(len(data), 6, side, side)
    value = enlarged(norm(value, "bn1", 1e-5), factor)
    value = leaky(norm(convolved(value, "conv_blocks1.0"), "conv_blocks1.1", eps))
    value = enlarged(value, factor)
    value = leaky(norm(convolved(value, "conv_blocks2.0"), "conv_blocks2.1", eps))
    value = convolved(value, "conv_blocks2.3")
    return normalised(value.tanh(), 1e-5) if tanh else norm(value, "conv_blocks2.4", 1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (DAFLGenerator, {}, {"eps": 0.8, "slope": 0.2, "factor": 2, "tanh": True}),
        (DAFLGenerator, {"bn_eps": 1e-5}, {"eps": 1e-5, "slope": 0.2, "factor": 2, "tanh": True}),
        (DAFLGenerator, {"scale_factor": 1}, {"eps": 0.8, "slope": 0.2, "factor": 1, "tanh": True}),
        (ZSKTGenerator, {}, {"eps": 1e-5, "slope": 0.2, "factor": 2, "tanh": False}),
        (ZSKTGenerator, {"leaky_slope": 0.5}, {"eps": 1e-5, "slope": 0.5, "factor": 2, "tanh": False}),
    ],
)
def test_images_and_gradients(kind: type[nn.Module], options: dict[str, Any], expected: dict[str, Any]) -> None:
    generator = made(kind, **options)
    images, by_formula = generator(noise()), by_hand(generator, noise(), **expected)
    assert images.shape == (4, 3, 8, 8)
    assert_same(images, by_formula, 1e-9)
    weights = list(generator.parameters())
    direction = torch.randn_like(images)
    given, wanted = (torch.autograd.grad((v * direction).sum(), weights) for v in (images, by_formula))
    assert_same(list(given), list(wanted), 1e-9, atol=1e-12)  # before a norm a bias has none


@KINDS
def test_noise_is_normal_and_drawn_at_each_call(kind: type[nn.Module]) -> None:
    generator = made(kind).eval()
    torch.manual_seed(3)
    drawn, other = generator(batch_size=7), generator(batch_size=7)
    torch.manual_seed(3)
    assert_same(drawn, generator(torch.randn(7, 5, dtype=torch.float64)))
    assert not torch.equal(drawn, other)
    assert generator().shape == (1, 3, 8, 8)
    assert generator.to(torch.bfloat16)(batch_size=2).dtype == torch.bfloat16


@KINDS
def test_data_come_before_batch_size(kind: type[nn.Module]) -> None:
    assert made(kind)(noise(3), batch_size=9).shape[0] == 3


@KINDS
def test_one_graph(kind: type[nn.Module], fresh_dynamo: None) -> None:
    generator = made(kind).eval()
    assert_same(torch.compile(generator, fullgraph=True, backend="eager")(noise()), generator(noise()))


def test_generators_are_found_by_name() -> None:
    assert isinstance(generators.build({"type": "ZSKTGenerator", **SIZES}), ZSKTGenerator)
    assert {"DAFLGenerator", "ZSKTGenerator"} <= set(dir(generators))
    with pytest.raises(SpecError, match=r"no generator is called 'DAFLGenerater'. Did you mean 'DAFLGenerator'"):
        generators.build({"type": "DAFLGenerater"})
    with pytest.raises(SpecError, match=r"ZSKTGenerator: .*bn_eps"):
        generators.build({"type": "ZSKTGenerator", **SIZES, "bn_eps": 0.1})
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = generators.Nothing


def test_a_generator_of_ones_own() -> None:
    @fxkd.generator("TestsOwnGenerator")
    class Own(nn.Module):
        def forward(self, data: Any = None, batch_size: int = 1) -> Tensor:
            return torch.ones(batch_size, 3)

    assert isinstance(generators.build({"type": "TestsOwnGenerator"}), Own)


@KINDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 0}, "img_size is 0; it must be a whole number above 0"),
        ({"latent_dim": 2.5}, "latent_dim is 2.5; it must be a whole number"),
        ({"hidden_channels": True}, "hidden_channels is True; it must be a whole number"),
        ({"hidden_channels": 1}, "hidden_channels is 1; the last layers have half as many, so give 2 or more"),
        ({"scale_factor": "2"}, "scale_factor is '2'; it must be a whole number"),
        ({"img_size": 10}, r"img_size is 10, which scale_factor 2 squared \(4\) does not divide"),
        ({"leaky_slope": "1e-2"}, "leaky_slope is '1e-2'; it must be a number of 0 or more. YAML reads"),
        ({"leaky_slope": -1}, "leaky_slope is -1; it must be a number of 0 or more"),
    ],
)
def test_options_that_cannot_be(kind: type[nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"{kind.__name__}: {message}"):
        kind(**{**SIZES, **options})


def test_an_eps_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="DAFLGenerator: bn_eps is nan; it must be a number of 0 or more"):
        DAFLGenerator(**SIZES, bn_eps=float("nan"))


@KINDS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": torch.zeros(2, 5, 1)}, r"data has shape \(2, 5, 1\); it takes noise \(N, latent_dim\)"),
        ({"data": torch.zeros(2, 4)}, r"data has shape \(2, 4\); .* with latent_dim 5"),
        ({"data": [0.0]}, "data is a list, not a tensor; leave it out to draw noise"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number above 0"),
        ({"batch_size": 2.0}, "batch_size is 2.0; it must be a whole number above 0"),
    ],
)
def test_noise_that_does_not_fit(kind: type[nn.Module], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"{kind.__name__}: {message}"):
        made(kind)(**arguments)
