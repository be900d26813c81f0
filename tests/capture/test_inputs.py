"""Calls as layouts: placeholders named by their place, constants fixed, what would be frozen refused."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxkd.capture import Inputs, Layout, split
from fxkd.errors import CaptureError
from tests.capture.replay import assert_replays, call_graph, captured, graph_of
from tests.support.oracle import assert_same


class Takes(nn.Module):
    """Takes nested values by position and keyword."""

    def forward(self, image: Tensor, batch: dict[str, Any], *rest: Any, scale: float = 1.0, **more: Any) -> Tensor:
        boxes = torch.stack([*batch["boxes"]]).sum(0)
        others = sum((tensor for tensor in rest if isinstance(tensor, Tensor)), start=boxes)
        return (image + others + more.get("mask", 0) + batch["meta"]["offset"]) * scale


def arguments(n: int = 2) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def make(seed: int) -> Tensor:
        return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))

    batch = {"boxes": [make(1), make(2)], "meta": {"offset": make(3), "id": 7}}
    return (make(0), batch, make(4)), {"scale": 2.0, "mask": make(5)}


def names(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[str, ...]:
    return Layout.of(Inputs(args, kwargs), model).names


def test_placeholders_are_named_by_their_place() -> None:
    args, kwargs = arguments()
    assert names(Takes(), *args, **kwargs) == (
        "image", "batch_boxes_0", "batch_boxes_1", "batch_meta_offset", "input_2", "mask",
    )  # fmt: skip
    placeholders = [node.target for node in captured(Takes(), *args, **kwargs).graph.nodes if node.op == "placeholder"]
    assert tuple(placeholders) == names(Takes(), *args, **kwargs)


def test_nested_arguments_are_free_at_every_call() -> None:
    args, kwargs = arguments()
    graph_module = graph_of(Takes(), *args, **kwargs)
    args, kwargs = arguments(5)
    assert_same(Takes()(*args, **kwargs), call_graph(graph_module, *args, **kwargs))


def test_names_are_identifiers_and_differ() -> None:
    class Odd(nn.Module):
        def forward(self, given: dict[str, Tensor], given_a: Tensor, **more: Tensor) -> Tensor:
            return sum(given.values(), start=given_a) + sum(more.values())

    x = torch.ones(2)
    found = names(Odd(), {"a": x, "a ": x, "a-b": x, "0": x}, x, **{"lambda": x, "1st": x})
    assert len(set(found)) == len(found)
    assert all(name.isidentifier() for name in found)
    assert "lambda" not in found
    assert_replays(Odd(), ({"a": x, "a ": x + 1, "0": x}, x))


def test_the_same_tensor_given_twice_is_two_placeholders() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a * 2 + b * 3

    x = torch.ones(2)
    graph_module = graph_of(Two(), x, x)
    assert_same(Two()(x, x + 1), graph_module(x, x + 1))


def layout(*args: Any, **kwargs: Any) -> Layout:
    return Layout.of(Inputs(args, kwargs), Takes())


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((torch.ones(5, 7), 1, "a"), True),
        ((torch.ones(5, 7), 2, "a"), False),
        ((torch.ones(5, 7), 1.0, "a"), False),
        ((torch.ones(5, 7), True, "a"), False),
        ((torch.ones(5, 7), 1, "b"), False),
        ((torch.ones(5, 7), 1, None), False),
        ((torch.ones(5), 1, "a"), False),
        ((torch.ones(5, 7, dtype=torch.float64), 1, "a"), False),
        ((torch.ones(5, 7), torch.ones(()), "a"), False),
        ((torch.ones(5, 7), 1), False),
        (([torch.ones(5, 7)], 1, "a"), False),
    ],
)
def test_a_layout_is_good_for_calls_of_its_form(other: tuple[Any, ...], same: bool) -> None:
    assert layout(torch.ones(2, 3), 1, "a").matches(*split(other, {})) is same


def test_a_layout_compares_objects_without_equality_of_their_own() -> None:
    marker = object()
    assert layout(torch.ones(2), marker).matches(*split((torch.ones(2), marker), {}))
    assert not layout(torch.ones(2), marker).matches(*split((torch.ones(2), object()), {}))


def test_an_array_among_the_arguments_can_be_compared() -> None:
    import numpy as np

    first, again = np.arange(3), np.arange(3)
    layout(torch.ones(2), first).matches(*split((torch.ones(2), again), {}))  # an answer, not an error


def test_a_layout_fills_in_tensors() -> None:
    args, kwargs = arguments()
    made = Layout.of(Inputs(args, kwargs), Takes()).fill(split(args, kwargs)[1])
    assert_same((args, kwargs), (made.args, made.kwargs))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.ones(1), Inputs((torch.ones(1),))),
        ((torch.ones(1), 2), Inputs((torch.ones(1), 2))),
        ({"x": torch.ones(1)}, Inputs((), {"x": torch.ones(1)})),
        (Inputs((1,), {"x": 2}), Inputs((1,), {"x": 2})),
    ],
)
def test_example_inputs_are_read(given: Any, expected: Inputs) -> None:
    made = Inputs.of(given)
    assert_same((expected.args, expected.kwargs), (made.args, made.kwargs))


@pytest.mark.parametrize("given", [5, None, "x"])
def test_other_example_inputs_are_refused(given: Any) -> None:
    with pytest.raises(CaptureError, match=f"example_inputs is a {type(given).__name__}; give a tuple"):
        Inputs.of(given)


@pytest.mark.parametrize("given", [(torch.ones(1),), ((), [1])])
def test_inputs_of_another_form_are_refused(given: Any) -> None:
    with pytest.raises(CaptureError, match=r"fxkd.Inputs is given .*tuple of positional arguments, also of one"):
        Inputs(*given)


def test_a_tensor_inside_an_unregistered_object_is_refused() -> None:
    @dataclass
    class Batch:
        image: Tensor

    class Model(nn.Module):
        def forward(self, data: Any) -> Tensor:
            return data[0].image * 2

    with pytest.raises(CaptureError, match=r"input at .*\[0\].* is a Batch, which holds the tensor 'image'.*register"):
        captured(Model(), [Batch(torch.ones(2))])
