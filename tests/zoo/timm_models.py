"""Models of timm: convolutional networks, vision transformers, and what lies between."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from tests.zoo.model import REFUSED, RIGHT, Call, Model, images, shaken
from tests.zoo.timm_options import BETWEEN, CONVOLUTIONAL, TRANSFORMERS, Options

FAMILIES: dict[str, dict[str, Options]] = {
    "timm: convolutional": CONVOLUTIONAL,
    "timm: transformers": TRANSFORMERS,
    "timm: between and beyond": BETWEEN,
}


def build(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    return shaken(timm.create_model(name, num_classes=10, **options))


def call(size: int, batch: int, seed: int = 1) -> Call:
    return (), {"x": images(batch, size, seed=seed)}


def further(options: Options) -> dict[str, Callable[[], Call]]:
    calls = {"batch of 3": partial(call, options.size, 3, seed=2)}
    if options.other_size:
        calls[f"{options.other_size} pixels"] = partial(call, options.other_size, 2, seed=3)
    return calls


MODELS = [
    Model(
        name=f"timm/{name}",
        family=family,
        build=partial(build, name, dict(options.given)),
        inputs=partial(call, options.size),
        further=further(options),
        expected=REFUSED if options.refused else RIGHT,
        reason=options.refused,
        is_warm=options.is_warm,
    )
    for family, models in FAMILIES.items()
    for name, options in models.items()
]
