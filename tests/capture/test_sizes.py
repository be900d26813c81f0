"""Other sizes are tried alone and together, and what differs is found either way."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fxkd.capture.sizes import Tries, Verdict, grown, other_sizes, size_classes

NAMES, TENSORS = ("ids", "mask", "image"), [torch.zeros(2, 12), torch.ones(2, 12), torch.zeros(2, 3, 16, 16)]
BATCH = [("ids", 0), ("mask", 0), ("image", 0)]
LENGTH = [("ids", 1), ("mask", 1)]
CHANNELS = [("image", 1)]
SIDES = [("image", 2), ("image", 3)]
VERDICTS: dict[bool | None, Verdict] = {True: "same", False: "other", None: "refused"}


def test_classes() -> None:
    assert size_classes(NAMES, TENSORS) == [BATCH, LENGTH, CHANNELS, SIDES]


def test_grown() -> None:
    larger = grown(("x",), [torch.tensor([[1, 2], [3, 4]])], [([("x", 0)], 3), ([("x", 1)], 1)])
    assert larger[0].tolist() == [[1], [3], [1]]


@pytest.mark.parametrize(
    ("is_same", "frozen"),
    [
        (lambda batch, length, channels, side: channels == 3 or None, CHANNELS),
        (lambda batch, length, channels, side: channels == 3 and batch != 1, BATCH + CHANNELS),
        (lambda batch, length, channels, side: (length != 24) and (channels == 3 or None), LENGTH + CHANNELS),
        (lambda batch, length, channels, side: (channels == 3 and side % 2 == 0) or None, CHANNELS),
        (lambda batch, length, channels, side: None, BATCH + LENGTH + CHANNELS + SIDES),
        (lambda batch, length, channels, side: True, []),
    ],
)
def test_what_is_frozen(is_same: Callable[..., bool | None], frozen: list[tuple[str, int]]) -> None:
    def tried(tensors: list[Tensor]) -> Verdict:
        return VERDICTS[is_same(*tensors[0].shape, *tensors[2].shape[1:3])]

    assert sorted(Tries(tried, on_values=False).frozen(NAMES, TENSORS)) == sorted(frozen)


def test_free_sizes_are_tried_together() -> None:
    seen: list[tuple[int, ...]] = []

    def tried(tensors: list[Tensor]) -> Verdict:
        seen.append((*tensors[0].shape, *tensors[2].shape[1:3]))
        return "same" if seen[-1][2] == 3 else "refused"

    assert Tries(tried, on_values=True).frozen(NAMES, TENSORS) == CHANNELS
    alone = [(5, 12, 3, 16), (2, 13, 3, 16), (2, 12, 7, 16), (2, 12, 6, 16), (2, 12, 3, 17)]
    assert seen == [*alone, (4, 24, 3, 32), (1, 12, 3, 16)]
    assert other_sizes(2, is_batch=True, on_values=True) == (5, 4, 1)


def test_a_guard_is_no_proof_for_sizes_behind_it() -> None:
    def tried(tensors: list[Tensor]) -> Verdict:
        batch, length = tensors[0].shape
        if batch > 5:
            return "guarded"
        return "other" if length == 24 else "same"

    assert Tries(tried, on_values=False).frozen(NAMES, TENSORS) == LENGTH
