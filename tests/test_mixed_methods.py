"""Parts of several methods in one distillation."""

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch

import fxkd
from tests.support.oracle import assert_same
from tests.support.standins import rows
from tests.support.standins.classifier import labelled


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_points_of_one_method_connectors_of_another_and_the_loss_of_a_third() -> None:
    """FitNets' points, the connectors of factor transfer, and the loss of attention transfer train together."""
    spec = {
        "student_recorders": {"feat": {"type": "ModuleOutputs", "source": "backbone.layer3.1.relu"}},
        "teacher_recorders": {"feat": {"type": "ModuleOutputs", "source": "backbone.layer3.5.relu"}},
        "connectors": {
            "translator": {"type": "Translator", "in_channel": 256, "out_channel": 128},
            "paraphraser": {"type": "Paraphraser", "in_channel": 1024, "out_channel": 128, "phase": "train"},
        },
        "distill_losses": {"loss_at": {"type": "ATLoss", "loss_weight": 250.0}},
        "loss_forward_mappings": {
            "loss_at": {
                "s_feature": {"recorder": "feat", "from_student": True, "record_idx": 1, "connector": "translator"},
                "t_feature": {"recorder": "feat", "from_student": False, "record_idx": 2, "connector": "paraphraser"},
            }
        },
        "student_loss": False,
    }
    student, teacher = rows.settled(rows.in1k(18, (1, 1, 2, 1)), 1), rows.settled(rows.in1k(50, (1, 1, 6, 1)), 2)
    call = labelled(4, 48, 1000)
    torch.manual_seed(0)
    distiller = fxkd.prepare(student.train(), teacher, spec, example_inputs=call)
    frozen = copy.deepcopy(distiller.connectors.paraphraser.state_dict())
    student_before = copy.deepcopy(student.state_dict())
    optimiser = torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], lr=2e-4)
    found = []
    for _ in range(10):
        out = distiller(*call)
        assert out.loss.equal(out.losses["loss_at"])
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        found.append(out.loss.item())
    assert all(later < earlier for earlier, later in itertools.pairwise(found)), found
    assert found[-1] < 0.5 * found[0], found
    assert_same(distiller.connectors.paraphraser.state_dict(), frozen)
    changed = {name for name, p in student.named_parameters() if not p.equal(student_before[name])}
    assert {name.rsplit(".", 2)[0] for name in changed} >= {"backbone.layer1.0", "backbone.layer3.1"}
    assert not any(name.startswith(("backbone.layer4", "head")) for name in changed)
