"""Numbers with nodes: sizes stay free, what the program decided by them is guarded."""

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from fxkd.capture.guards import guard
from fxkd.errors import GuardError
from tests.capture.decisions import FREE, GUARDED
from tests.capture.replay import call_graph, graph_of, targets
from tests.support.oracle import assert_same

Expression = Callable[[Any, Any], Any]


class Formula(nn.Module):
    """Give a value computed from two sizes."""

    def __init__(self, expression: Expression) -> None:
        super().__init__()
        self.expression = expression

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return x, self.expression(x.shape[0], y.shape[1])


def sizes(n: int, m: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(n, 2), torch.zeros(2, m)


OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "/": operator.truediv,
}
LEAF = st.sampled_from(["n", "m"]) | st.integers(-4, 4)
TREES = st.recursive(
    LEAF,
    lambda inner: st.tuples(st.sampled_from(sorted(OPERATORS)), inner, inner) | st.tuples(st.just("neg"), inner),
    max_leaves=8,
)


def evaluate(tree: Any, n: Any, m: Any) -> Any:
    if tree == "n":
        return n
    if tree == "m":
        return m
    if isinstance(tree, (int, float)):
        return tree
    if tree[0] == "neg":
        return -evaluate(tree[1], n, m)
    return OPERATORS[tree[0]](evaluate(tree[1], n, m), evaluate(tree[2], n, m))


def has_plain_float(tree: Any) -> bool:
    """Tell whether a part of an expression is a float without any size in it."""
    return isinstance(tree, tuple) and (
        type(outcome(lambda: evaluate(tree, None, None))) is float or any(map(has_plain_float, tree))
    )


def outcome(run: Callable[[], Any]) -> Any:
    """Give the value, or which error it is."""
    try:
        return run()
    except (ZeroDivisionError, OverflowError, TypeError) as error:
        return type(error)


@settings(max_examples=30)
@given(
    tree=TREES,
    seen=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    other=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_arithmetic_of_sizes_equals_python(tree: Any, seen: tuple[int, int], other: tuple[int, int]) -> None:
    if isinstance(outcome(lambda: evaluate(tree, *seen)), type):
        return  # the model itself raises on the example
    graph_module = graph_of(Formula(lambda n, m: evaluate(tree, n, m)), *sizes(*seen))
    for n, m in (seen, other):
        expected = outcome(lambda n=n, m=m: evaluate(tree, n, m))
        try:
            found = outcome(lambda n=n, m=m: call_graph(graph_module, *sizes(n, m))[1])
        except GuardError:
            assert has_plain_float(tree)  # which asks no int for its own method, so that the size is pinned
        else:
            assert (type(found), found) == (type(expected), expected)


@settings(max_examples=20)
@given(
    tree=TREES,
    symbol=st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]),
    bound=st.integers(-5, 10),
    seen=st.integers(1, 6),
    other=st.integers(1, 6),
)
def test_a_comparison_of_sizes_holds_or_is_refused(tree: Any, symbol: str, bound: int, seen: int, other: int) -> None:
    compare = getattr(operator, symbol)

    def decide(n: Any, m: Any) -> int:
        return 1 if compare(evaluate(tree, n, m), bound) else 0

    if isinstance(outcome(lambda: decide(seen, 2)), type):
        return
    graph_module = graph_of(Formula(decide), *sizes(seen, 2))
    expected = outcome(lambda: decide(other, 2))
    try:
        assert outcome(lambda: call_graph(graph_module, *sizes(other, 2))[1]) == expected
    except GuardError:
        assert expected != decide(seen, 2) or has_plain_float(tree)  # refused only where the program goes another way


class Decided(nn.Module):
    """Make the decision, nothing else."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.decide = (FREE | GUARDED)[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.decide(x)


def batch(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("name", FREE)
def test_free_sizes_need_no_guard(name: str) -> None:
    model = Decided(name)
    graph_module = graph_of(model, batch(2))
    assert guard not in [node.target for node in graph_module.graph.nodes]
    assert_same(model(batch(5)), call_graph(graph_module, batch(5)))


@pytest.mark.parametrize("name", GUARDED)
def test_a_decision_is_guarded(name: str) -> None:
    model = Decided(name)
    expected = model(batch(5))
    graph_module = graph_of(model, batch(2))
    assert_same(model(batch(2)), call_graph(graph_module, batch(2)))
    try:
        found = call_graph(graph_module, batch(5))
    except GuardError:
        return
    else:
        assert_same(expected, found)  # never a wrong value


def test_the_guard_says_what_and_where() -> None:
    graph_module = graph_of(Decided("greater"), batch(2))
    with pytest.raises(GuardError, match=r"only while 5 <= 3, as decided at .*decisions\.py:\d+ \(.*h\.shape\[0\] > 3"):
        call_graph(graph_module, batch(5))


def test_guards_on_inputs_run_before_anything_else() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return y * 2 if x.shape[0] * 2 > 6 else y

    model = Late()
    graph_module = graph_of(model, batch(2))
    before = model.norm.running_mean.clone()
    with pytest.raises(GuardError):
        call_graph(graph_module, batch(5))
    assert torch.equal(model.norm.running_mean, before)


def test_a_decision_is_guarded_once() -> None:
    graph_module = graph_of(Formula(lambda n, m: sum(1 for _ in "abc" if n > 3)), *sizes(2, 2))
    assert targets(graph_module).count("guard") == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda number: pickle.loads(pickle.dumps(number))])
def test_a_copied_number_is_plain(copied: Callable[[Any], Any]) -> None:
    kept: list[Any] = []

    def formula(n: Any, m: Any) -> Any:
        kept.extend([copied(n), copied(n / 2)])
        return n

    graph_of(Formula(formula), *sizes(2, 2))
    assert {type(number) for number in kept} == {int, float}


def test_a_number_kept_after_capture_is_harmless() -> None:
    kept: list[Any] = []

    def formula(n: Any, m: Any) -> Any:
        kept.append(n)
        return n

    graph_module = graph_of(Formula(formula), *sizes(2, 2))
    count = len(graph_module.graph.nodes)
    number = kept[0]
    assert (number + 1, number * 2.5, -number, number > 1, int(number), [0] * number, hash(number)) == (
        3, 5.0, -2, True, 2, [0, 0], hash(2),
    )  # fmt: skip
    assert type(number + 1) is int
    assert len(graph_module.graph.nodes) == count


def test_range_is_still_range() -> None:
    seen: list[bool] = []

    def formula(n: Any, m: Any) -> Any:
        seen.append(isinstance(range(3), range) and list(range(1, 7, 2)) == [1, 3, 5] and not isinstance(n, range))
        return n

    original = range
    graph_of(Formula(formula), *sizes(2, 2))
    assert seen
    assert all(seen)
    assert range is original


def test_numbers_that_a_leaf_returns_stay_free() -> None:
    class Patches(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
            return x.flatten(2).transpose(1, 2), x.shape[2], x.shape[3]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = Patches()

        def forward(self, x: Tensor) -> Tensor:
            tokens, height, width = self.patches(x)
            return tokens.transpose(1, 2).reshape(x.shape[0], -1, height, width) * (height / width)

    model = Model()
    graph_module = graph_of(model, torch.randn(2, 3, 4, 6))
    assert "model.patches" in targets(graph_module)
    assert "guard" not in targets(graph_module)
    x = torch.randn(5, 3, 8, 2)
    assert_same(model(x), call_graph(graph_module, x))


def test_a_truth_that_a_leaf_returns_is_guarded() -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, bool]:
            return x + 1, x.shape[0] > 3

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = Wide()

        def forward(self, x: Tensor) -> Tensor:
            y, wide = self.wide(x)
            return y * 2 if wide else y

    model = Model()
    graph_module = graph_of(model, torch.randn(2, 3))
    call_graph(graph_module, torch.randn(3, 3))
    with pytest.raises(GuardError, match="True == False"):
        call_graph(graph_module, torch.randn(4, 3))


def test_the_graph_of_an_expression_is_plain_arithmetic() -> None:
    graph_module = graph_of(Formula(lambda n, m: (n + 1) * m), *sizes(2, 3))

    def expected(x: Tensor, y: Tensor) -> Any:
        return x, (x.size(0) + 1) * y.size(1)

    assert set(targets(graph_module)) == set(targets(fx.symbolic_trace(expected)))
