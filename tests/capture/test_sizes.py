"""Other sizes are tried alone and together, and what differs is found either way."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fxkd.capture.sizes import Tries, Verdict, grown, size_classes

NAMES = ("ids", "mask", "image")
TENSORS = [torch.zeros(2, 12).long(), torch.ones(2, 12).long(), torch.zeros(2, 3, 16, 16)]
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

    assert sorted(Tries(NAMES, TENSORS, tried, on_values=False).frozen()) == sorted(frozen)


def seen_by(tells: Callable[[tuple[int, ...]], Verdict]) -> tuple[Tries, list[tuple[int, ...]]]:
    """Make tries, and list the sizes of batch, length, channels and sides that they see."""
    seen: list[tuple[int, ...]] = []

    def tried(tensors: list[Tensor]) -> Verdict:
        seen.append((*tensors[0].shape, *tensors[2].shape[1:3]))
        return tells(seen[-1])

    return Tries(NAMES, TENSORS, tried, on_values=True), seen


def test_free_sizes_are_tried_together() -> None:
    tries, seen = seen_by(lambda sizes: "same" if sizes[2] == 3 else "refused")
    assert tries.frozen() == CHANNELS
    assert seen == [(5, 13, 3, 17), (2, 12, 7, 16), (2, 12, 6, 16), (1, 24, 3, 32)]


def test_each_is_tried_alone_where_they_are_not_free_together() -> None:
    tries, seen = seen_by(lambda sizes: "same" if sizes[2] == 3 and sizes[3] in (16, 32) else "refused")
    assert tries.frozen() == CHANNELS
    alone = [(5, 12, 3, 16), (2, 13, 3, 16), (2, 12, 7, 16), (2, 12, 6, 16), (2, 12, 3, 17), (2, 12, 3, 32)]
    assert seen == [(5, 13, 3, 17), *alone, (1, 24, 3, 16)]


def test_a_guard_is_no_proof_for_sizes_behind_it() -> None:
    def tried(tensors: list[Tensor]) -> Verdict:
        batch, length = tensors[0].shape
        if batch > 5:
            return "guarded"
        return "other" if length == 24 else "same"

    assert Tries(NAMES, TENSORS, tried, on_values=False).frozen() == LENGTH


@pytest.mark.parametrize(("batch", "seen"), [(1, [3, 2]), (2, [5, 1]), (3, [7, 1, 6]), (20, [41, 10])])
def test_a_batch_is_odd_and_even_and_twice_as_large(batch: int, seen: list[int]) -> None:
    sizes = list[int]()

    def tried(tensors: list[Tensor]) -> Verdict:
        sizes.append(len(tensors[0]))
        return "same"

    assert Tries(("x",), [torch.zeros(batch)], tried, on_values=True).frozen() == []
    assert sizes == seen


def test_sizes_that_a_guard_tells_apart_do_not_part_the_others() -> None:
    tries, seen = seen_by(lambda sizes: "guarded" if sizes[3] != 16 else "same" if sizes[2] == 3 else "refused")
    assert tries.frozen() == CHANNELS
    assert seen[-3:] == [(1, 24, 3, 16), (2, 12, 3, 32), (2, 12, 3, 15)]
