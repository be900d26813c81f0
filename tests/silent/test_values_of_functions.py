"""What Python makes of the values that a named function gives must not stay in the graph as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError


def first(x: Tensor) -> Any:
    return x.detach().numpy()[0]


def last(x: Tensor) -> Any:
    return x.detach().numpy()[-1]


def halved(x: Tensor) -> Tensor:
    return torch.as_tensor(x.detach().numpy() * 0.5)


class Net(nn.Module):
    """Goes on with what Python makes of a value."""

    def __init__(self, makes: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.makes = nn.Linear(4, 3), makes

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        y = self.fc(x)
        y = y * self.makes(y)
        return y if others is None else y + self.fc(others).sum()


MAKES: dict[str, Callable[[Tensor], Any]] = {
    "first": lambda x: float(first(x).sum()),
    "last": lambda x: float(last(x).sum()),
}


@pytest.mark.parametrize("others", [None, torch.ones(3, 4)], ids=["one input", "two inputs"])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("name", ["first", "last"])
def test_what_is_made_of_them_is_refused(name: str, batch: int, others: Tensor | None) -> None:
    torch.manual_seed(0)
    recorder = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.{name}"}}
    inputs = fxkd.Inputs((torch.randn(batch, 4), *([] if others is None else [others])))
    with pytest.raises(CaptureError, match=r"Python code works on what is given by|the value of a tensor"):
        fxkd.record(Net(MAKES[name]), recorder, inputs)


def test_a_table_is_read_by_twice_the_batch() -> None:
    model = Net(lambda x: halved(x) + [1.0, 2.0, 3.0][x.shape[0] // 32])
    recorder = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.halved"}}
    recorded = fxkd.record(model, recorder, fxkd.Inputs((torch.randn(20, 4),)))
    for batch in (20, 40, 20):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(recorded(x)[0], model(x))


def whole(x: Tensor) -> int:
    return int(x.detach().abs().sum() > 1e6) + 1


def test_a_whole_number_that_python_looks_something_up_by_is_refused() -> None:
    recorder = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.whole"}}
    with pytest.raises(CaptureError, match="Python code works on what is given by"):
        fxkd.record(Net(lambda y: [1.0, 2.0, 3.0][whole(y)]), recorder, fxkd.Inputs((torch.randn(2, 4),)))


@pytest.mark.parametrize("makes", [lambda y: whole(y), lambda y: 1 / (whole(y) + 1), lambda y: y.new_ones(whole(y), 1)])
def test_a_whole_number_that_is_computed_with_stays_free(makes: Any) -> None:
    recorder = {"x": {"type": "FunctionOutputs", "source": f"{__name__}.whole"}}
    model = Net(makes)
    recorded = fxkd.record(model, recorder, fxkd.Inputs((torch.randn(2, 4),)))
    for scale in (1.0, 1e9, 1.0):
        x = torch.randn(2, 4) * scale
        torch.testing.assert_close(recorded(x)[0], model(x))
