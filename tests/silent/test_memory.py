"""The memory that a graph's nodes name stays theirs: a freed one would be given to another tensor."""

import torch
from torch import nn

from fxkd.capture import Inputs, PointName, capture
from fxkd.capture.structure import storages


def test_every_memory_that_a_node_names_is_held() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    captured = capture(model, Inputs((torch.zeros(3, 4),)), points=[PointName("ModuleOutputs", "1")])
    held = storages([twin for twin, _ in captured.kept.values()]).union(
        *(storages(node.meta.get("val")) for node in captured.graph.nodes)
    )
    named = {
        memory
        for node in captured.graph.nodes
        for key in ("storages", "mutates", "reads")
        for memory in node.meta.get(key, ())
    }
    assert named
    assert named <= held
