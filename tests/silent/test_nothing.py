"""A named function that gives None for some values, or a tensor: the program behind it goes another way."""

import pytest
from torch import Tensor

import fxkd
from tests.support.hooks import Net, batch
from tests.support.oracle import assert_same, recording


def mask_of(x: Tensor) -> Tensor | None:
    if bool((x > -100).all()):
        return None  # nothing is hidden
    return (x > -100).float()


def pair_of(x: Tensor) -> tuple[Tensor, Tensor | None]:
    return x.relu(), mask_of(x)


class Masks(Net):
    def between(self, x: Tensor) -> Tensor:
        mask = mask_of(x)
        return x.relu() if mask is None else (x * mask).relu()


class Pairs(Net):
    def between(self, x: Tensor) -> Tensor:
        x, mask = pair_of(x)
        return x if mask is None else x * mask


def hidden(size: int) -> Tensor:
    return batch(size) * 1e6


@pytest.mark.parametrize(
    ("kind", "name", "calls"),
    [
        (Masks, "mask_of", (batch(2), hidden(2), batch(3), hidden(3), batch(2))),
        (Masks, "mask_of", (hidden(2), batch(2), hidden(3))),
        (Pairs, "pair_of", (batch(2), hidden(2), batch(3), hidden(3))),
    ],
)
def test_none_or_a_tensor(kind: type[Net], name: str, calls: tuple[Tensor, ...]) -> None:
    model = kind()
    points = {"named": {"type": "FunctionOutputs", "source": f"{__name__}.{name}"}}
    recorded = fxkd.record(model, points, calls[0])
    for x in calls:
        with recording(model, points) as records:
            output = model(x)
        assert_same((output, records), recorded(x))
