"""Kinds of distillation as compiled steps: one graph, nothing compiled when schedules move, the numbers of eager."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxkd
from tests.support.oracle import assert_same

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

LABELS = torch.tensor([0, 1, 2, 0])
OWN = {
    "student_loss": {
        "type": "CrossEntropyLoss",
        "args": {"input": "from_output", "target": {"from_input": "labels"}},
        "weight": {"schedule": "cosine", "start": 1.0, "end": 0.1, "steps": 3},
    },
    "inputs": ["labels"],
}
WEIGHT = {"schedule": "linear", "start": 1.0, "end": 4.0, "steps": 3}


class Net(nn.Module):
    """Two convolutions, a norm, a pool, a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.first, self.bn = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.bn(self.first(x)).relu()).relu()
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def pair(point: str, kind: str, teacher: str = "", **more: Any) -> dict[str, Any]:
    options = {key: more.pop(key) for key in list(more) if not key.endswith("connector")}
    loss = {"type": kind, "loss_weight": WEIGHT, **options}
    return {"student": point, "teacher": teacher or point, "loss": loss, **more}


FC = {"fc": {"type": "ModuleOutputs", "source": "fc"}}
MINE, THEIRS = {"recorder": "fc", "from_student": True}, {"recorder": "fc", "from_student": False}
SPECS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "logits": ({"pairs": [pair("fc", "KLDivergence", tau={**WEIGHT, "schedule": "cosine"})], **OWN}, lambda: Net(4)),
    "hint and attention": (
        {"pairs": [pair("second", "L2Loss", student_connector="auto"), pair("first", "ATLoss")]},
        lambda: Net(4),
    ),
    "overhaul": (
        {"pairs": [pair("bn", "OFDLoss", student_connector="auto", teacher_connector={"type": "OFDTeacherConnector"})]},
        lambda: Net(4),
    ),
    "relations": ({"pairs": [pair("pool", "DistanceWiseRKD"), pair("pool", "AngleWiseRKD")]}, lambda: Net(4)),
    "labels": (
        {"pairs": [{**pair("fc", "DKDLoss", tau=2.0), "args": {"gt_labels": "labels"}}], "inputs": ["labels"]},
        lambda: Net(4),
    ),
    "dense": (
        {"pairs": [pair("second", kind, student_connector="auto") for kind in ("ChannelWiseDivergence", "PKDLoss")]},
        lambda: Net(4),
    ),
    "several teachers": (
        {
            "student_recorders": FC,
            "teacher_recorders": {name: {**FC["fc"], "from_teacher": name} for name in ("a", "b")},
            "connectors": {"mean": {"type": "SoftLabelEnsemble"}},
            "distill_losses": {"loss": {"type": "KLDivergence", "loss_weight": WEIGHT}},
            "loss_forward_mappings": {
                "loss": {"preds_S": MINE, "preds_T": THEIRS | {"recorder": ["a", "b"], "connector": "mean"}}
            },
        },
        lambda: {"a": Net(4), "b": Net(6)},
    ),
    "mutual": (
        {
            "student_recorders": FC,
            "teacher_recorders": FC,
            "distill_losses": {"loss_s": {"type": "KLDivergence"}, "loss_t": {"type": "KLDivergence"}},
            "loss_forward_mappings": {
                "loss_s": {"preds_S": MINE, "preds_T": THEIRS},
                "loss_t": {"preds_S": THEIRS, "preds_T": MINE},
            },
            "teacher_trainable": True,
            **OWN,
        },
        lambda: Net(4),
    ),
    "itself": ({"pairs": [pair("first", "ATLoss", "bn")]}, lambda: None),
}


def batch(seed: int) -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPECS)
def test_one_graph_whatever_schedules_do(name: str, backend: str) -> None:
    spec, teacher = SPECS[name]
    counter = CompileCounterWithBackend(backend)
    given: dict[str, Any] = {"x": batch(0)} | ({"labels": LABELS} if "inputs" in spec else {})
    eager = fxkd.prepare(Net(3), teacher(), spec, example_inputs=given, verify=False)
    how: Any = {"backend": counter, "fullgraph": True}
    compiled = fxkd.prepare(Net(3), teacher(), spec, example_inputs=given, verify=False, compile=how)
    compiled.load_state_dict(copy.deepcopy(eager.state_dict()))
    weights = []
    close = 1e-4 if backend == "inductor" else 1e-5  # fused, a divergence of nearly equal logits is rounded otherwise
    for step in range(4):
        given["x"] = batch(step)
        expected, out = eager(**given), compiled(**given)
        assert_same(out.losses, expected.losses, rtol=close)
        assert_same(out.loss, expected.loss, rtol=close)
        expected.loss.backward()
        out.loss.backward()
        for part in (eager, compiled):
            part.step()
        weights.append(out.loss.item())
    of_eager, of_compiled = (
        {
            n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in part.named_parameters()
        }  # compiled gives zeros
        for part in (eager, compiled)
    )
    largest = max(value.abs().max().item() for value in of_eager.values())
    assert largest > 0
    assert_same(of_eager, of_compiled, atol=1e-5 * largest)
    assert counter.frame_count == 1, "compiled anew"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert len(set(weights)) == 4
