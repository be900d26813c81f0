"""What recordings do not show where a guard, a value or another size comes first: right, captured anew, or refused."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError, FxkdError


class Context:
    """Goes along with the tensors."""

    def __init__(self) -> None:
        self.scale = 2.0


class ByValue(nn.Module):
    """Leaves a word in what it is given, where the values are large."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if float(x.sum()) > 0:
            context.scale = 7.0
        return x * 1


class AsksTheContext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.part = nn.Linear(4, 4), ByValue()

    def forward(self, x: Tensor) -> Tensor:
        context = Context()
        return self.part(self.first(x), context) * context.scale


class Remembering(nn.Module):
    """Leaves a word in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        self.scale = 7.0 if float(x.sum()) > 0 else 2.0
        return x * 1


class AsksThePart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.part = nn.Linear(4, 4), Remembering()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.first(x)) * self.part.scale


class TwoSizes(nn.Module):
    """One size decides what is run; a library looks at the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.shape[0] < 6:
            x = x + 1
        return x * math.log2(x.shape[1]) if x.shape[1] % 2 == 0 else x


class CountsCalls(nn.Module):
    """Compares a size with how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.calls = nn.Identity(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.first(x) * self.calls if x.shape[0] > self.calls else self.first(x)


@pytest.mark.parametrize("build", [AsksTheContext, AsksThePart, TwoSizes, CountsCalls])
def test_right_or_refused(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, plain = build(), build()
    plain.load_state_dict(model.state_dict())
    x = torch.rand(4, 4)
    try:
        recorded = fxkd.record(model, ["first"], example_inputs=-x)
        for given in (-x, x, torch.rand(4, 8), torch.rand(8, 4), torch.rand(3, 4), x):
            if build is TwoSizes or given.shape[1] == 4:
                torch.testing.assert_close(recorded(given)[0], plain(given))
    except FxkdError as refused:
        assert build is not TwoSizes, refused  # noqa: PT017


def mostly(x: Tensor) -> Tensor | None:
    """Give something, and sometimes nothing."""
    out = None
    if random.random() > 0.3:
        out = x * 1
    return out


class MayGetNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        given = mostly(x)
        return x if given is None else x * 2 + given


def test_a_function_that_draws_whether_it_gives_anything() -> None:
    model, x = MayGetNothing(), torch.randn(3, 4)
    point: Any = {"drawn": {"type": "FunctionOutputs", "source": f"{__name__}.mostly"}}
    random.seed(0)
    recorded = fxkd.record(model, point, example_inputs=x)
    seen = set()
    for seed in range(12):
        random.seed(seed)
        expected = model(x)
        random.seed(seed)
        try:
            output, _ = recorded(x)
        except CaptureError:
            continue  # what was drawn decides, and says so
        torch.testing.assert_close(output, expected)
        seen.add(seed)
    assert seen


class Squared(torch.autograd.Function):
    """Multiplies twice inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return Squared.apply(self.part(x)) * 3


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_operations_inside_a_custom_function_count_for_nobody(backend: str) -> None:
    model, x = OwnFunction(), torch.randn(2, 4)
    point = {"m": {"type": "ModuleOutputs", "source": ":mul"}}
    mapping = {
        "s_feature": {"recorder": "m", "from_student": True},
        "t_feature": {"recorder": "m", "from_student": False},
    }
    spec = {
        "student_recorders": point,
        "teacher_recorders": point,
        "distill_losses": {"loss": {"type": "L1Loss"}},
        "loss_forward_mappings": {"loss": mapping},
        "student_loss": False,
    }
    distiller = fxkd.prepare(
        model,
        OwnFunction(),
        spec,
        example_inputs=x.requires_grad_(),
        backend=backend,
        return_records=True,
        verify=False,
    )
    (record,) = distiller(x).records["student"]["m"]
    torch.testing.assert_close(record, x * x * 3)
