"""A model that asks whether its values are finite is one graph, which asks too."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError, GuardError

CHECKS: dict[str, Callable[[Tensor], bool]] = {
    "all finite": lambda x: not torch.isfinite(x).all(),
    "any infinite": lambda x: bool(torch.isinf(x).any() or x.isnan().any()),
}


class Clamping(nn.Module):
    """Clamps its values where they are not finite, as encoders in half precision do."""

    def __init__(self, check: str) -> None:
        super().__init__()
        self.first, self.last, self.check = nn.Linear(4, 4), nn.Linear(4, 4), check

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).exp()
        if CHECKS[self.check](y):
            y = y.clamp(-1, 1)
        return self.last(y)


class Around(nn.Module):
    def __init__(self, check: str) -> None:
        super().__init__()
        self.inside, self.head = Clamping(check), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inside(x))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", ["inside.first", "head"], ids=["recorded", "in one node"])
def test_a_check_is_kept(check: str, path: str) -> None:
    torch.manual_seed(0)
    model = Around(check)
    own, kept = copy.deepcopy(model), list[Tensor]()
    own.get_submodule(path).register_forward_hook(lambda module, args, output: kept.append(output))
    recorded = fxkd.record(model, {"x": path}, example_inputs=torch.randn(2, 4))
    for batch in (2, 5):
        x = torch.randn(batch, 4)
        kept.clear()
        expected = own(x)
        output, records = recorded(x)
        torch.testing.assert_close((output, records["x"]), (expected, kept))
        output.square().sum().backward()
        expected.square().sum().backward()
    for mine, theirs in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("check", CHECKS)
def test_other_values_are_told(check: str) -> None:
    recorded = fxkd.record(Around(check), ["inside.first"], example_inputs=torch.randn(2, 4))
    told = r"values are not finite at .*test_finite.py.*name the function or method that asks.*backend='eager'"
    with pytest.raises(GuardError, match=told):
        recorded(torch.full((2, 4), float("inf")))


def test_an_example_that_is_not_finite_is_refused() -> None:
    spec = {"pairs": [{"student": "inside.first", "teacher": "inside.first", "loss": {"type": "L1Loss"}}]}
    models = Around("all finite"), Around("all finite")
    with pytest.raises(CaptureError, match=r"values are not finite at .*test_finite.py"):
        fxkd.prepare(*models, spec, example_inputs=torch.full((2, 4), float("inf")))


def test_an_argument_may_hold_what_is_not_finite() -> None:
    class Masks(Clamping):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(y) if torch.isinf(x).any() else y

    with pytest.raises(CaptureError, match=r"the value of a tensor decides what is run at .*test_finite.py"):
        fxkd.record(Masks("all finite"), ["first"], example_inputs=torch.randn(2, 4))


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_in_one_node_goes_the_other_way(check: str) -> None:
    model = Around(check)
    recorded = fxkd.record(model, ["head"], example_inputs=torch.randn(2, 4))
    x = torch.full((2, 4), 200.0)
    torch.testing.assert_close(recorded(x)[0], model(x), equal_nan=True)


def test_compiled_whole() -> None:
    torch._dynamo.reset()
    x = torch.randn(2, 4)
    recorded = fxkd.record(Around("all finite"), ["inside.first"], example_inputs=x)
    compiled = torch.compile(recorded, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], recorded(x)[0])


def test_what_was_written_to_is_no_such_check() -> None:
    class Masked(Clamping):
        def forward(self, x: Tensor) -> Tensor:
            right = torch.isfinite(x)
            right &= x > 0
            return self.first(x) if right.all() else self.last(self.first(x))

    with pytest.raises(CaptureError, match=r"the value of a tensor decides what is run at .*test_finite.py"):
        fxkd.record(Masked("all finite"), ["first"], example_inputs=torch.randn(2, 4))
