"""What one recording shows of two things holds for both: the next step, and other values of named functions."""

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError


class Context:
    """What functions and the forward share."""

    def __init__(self) -> None:
        self.scale, self.count = 1.0, 0


CONTEXT = Context()
GIVEN = torch.ones(3, 4)


def sets(x: Tensor) -> Tensor:
    CONTEXT.scale = 4.0
    return x * 2


def counts(x: Tensor) -> Tensor:
    CONTEXT.count += 1
    return x * 2


def counted(x: Tensor) -> Any:
    CONTEXT.count += 1
    return numpy.array([float(CONTEXT.count % 3)])


def given(x: Tensor) -> Tensor:
    return GIVEN


def pair(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return y, y


def with_data(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return y, y.data


def with_part(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return y, y[:]


def buffer_of(model: Any) -> Tensor:
    held: Tensor = model.held
    return held


def halved(x: Tensor) -> Tensor:
    return torch.as_tensor(x.detach().numpy() * 0.5)


class Net(nn.Module):
    """Goes on with what a function gives."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.fc, self.id, self.context, self.does = nn.Linear(4, 4), nn.Identity(), CONTEXT, forward
        self.register_buffer("held", torch.ones(3, 4))
        self.table = [float(index) for index in range(64)]

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.does(self, x)
        return value


REFUSED = {
    "sets": lambda model, x: sets(model.fc(x) + CONTEXT.scale),
    "counts": lambda model, x: counts(model.fc(x) + CONTEXT.count),
    "counted": lambda model, x: model.fc(x) * float(counted(x)[0]),
}


@pytest.mark.parametrize(("name", "held"), [("sets", True), ("counts", True), ("counts", False), ("counted", False)])
def test_what_functions_do_for_the_next_step_is_refused(name: str, held: bool) -> None:
    CONTEXT.__init__()  # type: ignore[misc]
    model = Net(REFUSED[name])
    model.context = CONTEXT if held else None
    recorder = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.{name}"}}
    with pytest.raises(CaptureError, match=r"second call|Python code works on what"):
        fxkd.record(model, recorder, fxkd.Inputs((torch.randn(3, 4),)))


def of_buffer(model: Any, x: Tensor) -> Tensor:
    w = buffer_of(model)
    r = model.id(model.held)
    w.mul_(2.0)
    return model.fc(x) + r + w


def of_given(model: Any, x: Tensor) -> Tensor:
    a, b = given(x), given(x)
    r = model.id(a)
    b.mul_(2.0)
    return model.fc(x) + r


def of_pair(model: Any, x: Tensor) -> Tensor:
    a, b = pair(model.fc(x).detach() + model.held)
    r = model.id(b)
    a.mul_(3)
    return model.fc(a) + r


def of_data(model: Any, x: Tensor) -> Tensor:
    a, b = with_data(model.fc(x).detach() + model.held)
    r = model.id(b)
    a.mul_(3)
    return model.fc(a) + r


def of_part(model: Any, x: Tensor) -> Tensor:
    a, b = with_part(model.fc(x).detach() + model.held)
    r = model.id(b)
    a.mul_(3)
    return model.fc(a) + r


def with_copy(model: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give the output, and what the identity gives as it is at that time."""
    seen = list[Tensor]()
    with model.id.register_forward_hook(lambda module, args, value: seen.append(value.clone())):
        return model(x), seen[0]


@pytest.mark.parametrize(
    ("name", "forward"),
    [("buffer_of", of_buffer), ("given", of_given), ("pair", of_pair), ("with_data", of_data), ("with_part", of_part)],
)
def test_tensors_of_one_memory_are_known_as_such(name: str, forward: Any) -> None:
    model, x = Net(forward).requires_grad_(False), torch.randn(3, 4)
    function = {"type": "FunctionOutputs", "source": f"{__name__}.{name}"}
    recorders = {"x": function, "id": {"type": "ModuleOutputs", "source": "id"}}
    recorded = fxkd.record(model, recorders, fxkd.Inputs((x,)))
    for _ in range(2):
        GIVEN.fill_(1)
        model.held.fill_(1)
        wanted, seen = with_copy(model, x)
        GIVEN.fill_(1)
        model.held.fill_(1)
        value, records = recorded(x)
        torch.testing.assert_close(value, wanted)
        torch.testing.assert_close(records["id"][0], seen)


def in_a_window(model: Any, x: Tensor) -> Tensor:
    batch, y = x.shape[0], model.fc(x)
    return y * model.table[batch] if batch >= 16 and batch < 32 else y


@pytest.mark.parametrize(
    ("forward", "batches"),
    [
        (in_a_window, (20, 24, 40, 8, 20)),
        (lambda model, x: model.fc(x) * {21: 2.0, 40: 3.0}.get(x.shape[0], 1.0), (20, 40, 21, 20)),
        (lambda model, x: model.fc(x) * {(6, 4): 2.0, (7, 4): 3.0}.get(tuple(x.shape), 1.0), (2, 6, 7, 5, 2)),
        (lambda model, x: model.fc(x) * (2.0 if x.shape[0] in {6, 7} else 1.0), (2, 6, 7, 5, 2)),
        (lambda model, x: halved(model.fc(x)) * {4: 2.0, 8: 3.0}.get(x.shape[0], 1.0), (2, 4, 8, 2)),
    ],
    ids=["a window", "a table", "a table of shapes", "a set", "a table of a function"],
)
def test_sizes_that_python_looks_up(forward: Any, batches: tuple[int, ...]) -> None:
    recorders: Any = ["fc"]
    if 4 in batches:
        recorders = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.halved"}}
    model = Net(forward)
    recorded = fxkd.record(model, recorders, fxkd.Inputs((torch.randn(batches[0], 4),)))
    for batch in batches:
        x = torch.randn(batch, 4)
        torch.testing.assert_close(recorded(x)[0], model(x))
