"""What random models have found, each shrunk to the smallest model that shows it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd


class Net(nn.Module):
    """Two layers; what lies between them differs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(x).tanh())


def spec_of(**given: Any) -> dict[str, Any]:
    return {"student_loss": False} | given


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_what_a_frozen_teacher_hands_on_of_the_input_has_no_gradient(backend: Any) -> None:
    x = torch.ones(3, 4, requires_grad=True)
    spec = spec_of(distill_deliveries={"given": {"type": "ModuleInputs", "source": "first"}})
    fxkd.prepare(Net(0), Net(1), spec, example_inputs=x, backend=backend)(x).output.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("backend", ["graph", "eager"])
def test_what_a_frozen_teacher_records_of_the_input_has_no_gradient(backend: Any) -> None:
    x = torch.ones(3, 4, requires_grad=True)
    pair = {"input": {"recorder": "own", "from_student": True}}
    pair |= {"target": {"recorder": "given", "from_student": False, "data_idx": 0}}
    spec = spec_of(
        student_recorders={"own": {"type": "Parameter", "source": "first.weight"}},
        teacher_recorders={"given": {"type": "ModuleInputs", "source": "first"}},
        distill_losses={"loss": nn.MSELoss()},
        loss_forward_mappings={"loss": pair},
    )
    x = torch.ones(4, 4, requires_grad=True)
    fxkd.prepare(Net(0), Net(1), spec, example_inputs=x, backend=backend)(x).loss.backward()
    assert x.grad is None
