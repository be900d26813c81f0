"""Connectors between two models: prepared, checked, verified and trained, against the same values by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.capture.structure import tensors
from fxkd.connectors import OFDTeacherConnector
from fxkd.errors import SpecError, SpecWarning
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
SIDES = ({"type": "FBKDStudentConnector", "in_channels": 4}, {"type": "FBKDTeacherConnector", "in_channels": 6})
CHAIN = [{"type": "torch.nn.AvgPool2d", "kernel_size": 8}, {"type": "CRDConnector", "dim_in": 4, "dim_out": 5}]
BYOT = {"type": "BYOTConnector", "in_channel": 4, "out_channel": 8, "num_classes": 5, "expansion": 1, "pool_size": 4}


class Heads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 5), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x)


class Net(nn.Module):
    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, width, 3, 1, 1)
        self.norm = nn.BatchNorm2d(width)
        self.heads = Heads(width)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.heads(self.norm(self.conv(x)).relu().mean((2, 3)))
        return one + other


class Apart(nn.Module):
    """Square the means of all tensors on both sides: their shapes need not agree."""

    def forward(self, given: Any, wanted: Any) -> Tensor:
        return sum(value.square().mean() for value in (*tensors(given), *tensors(wanted)))  # type: ignore[return-value]


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def spec(student: Any, teacher: Any, point: str = "conv", **picked: int) -> dict[str, Any]:
    recorders = {"at": {"type": "ModuleOutputs", "source": point}}
    connectors = {"s": student, "t": teacher}
    mapping = {
        "given": {"recorder": "at", "from_student": True, "connector": "s", **picked},
        "wanted": {"recorder": "at", "from_student": False, "connector": "t"},
    }
    for reference in mapping.values():
        if connectors[str(reference["connector"])] is None:
            del reference["connector"]
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {name: connector for name, connector in connectors.items() if connector is not None},
        "distill_losses": {"loss": Apart()},
        "loss_forward_mappings": {"loss": mapping},
    }


def outputs_of(model: nn.Module, point: str) -> Any:
    found = []
    handle = model.get_submodule(point).register_forward_hook(lambda module, args, output: found.append(output))
    model(images())
    handle.remove()
    return found[0]


CASES = {
    "factor transfer": spec(
        {"type": "Translator", "in_channel": 4, "out_channel": 8},
        {"type": "Paraphraser", "in_channel": 6, "out_channel": 8, "phase": "train"},
    ),
    "both of byot": spec(BYOT | {"stride": 1, "pool_size": 8}, None),
    "logits of byot": spec(BYOT | {"stride": 2, "pool_size": 4}, None, connector_idx=1),
    "a chain": spec(CHAIN, None),
    "fbkd": spec(*SIDES),
    "mgd": spec({"type": "MGDConnector", "student_channels": 4, "teacher_channels": 6}, None),
    "norm": spec({"type": "NormConnector", "in_channels": 4, "norm_cfg": {"type": "BN"}}, None),
    "in place": spec({"type": "torch.nn.ReLU", "inplace": True}, None),
    "a function": spec({"type": "TorchFunctionalConnector", "function_name": "normalize"}, None),
    "an ensemble": spec({"type": "torch.nn.Identity"}, {"type": "SoftLabelEnsemble", "tau": 4}, "heads"),
}


@BACKENDS
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str, backend: str) -> None:
    given = CASES[case]
    student, teacher = Net(4, 0), Net(6, 1)
    distiller = fxkd.prepare(student, teacher, given, example_inputs=(images(),), backend=backend)
    point = given["student_recorders"]["at"]["source"]
    connector = dict(distiller.connectors.items())
    torch.manual_seed(5)
    out = distiller(images())
    out.loss.backward()
    torch.manual_seed(5)
    mine, theirs = outputs_of(student, point), outputs_of(teacher, point)
    mine = connector["s"](tuple(value.clone() for value in mine) if isinstance(mine, tuple) else mine.clone())
    theirs = connector["t"](theirs) if "t" in connector else theirs
    picked = given["loss_forward_mappings"]["loss"]["given"].get("connector_idx")
    expected = Apart()(mine if picked is None else mine[picked], theirs)
    assert_same(out.loss.detach(), expected.detach(), 1e-5)
    frozen = case == "factor transfer"
    for name, parameter in connector["s"].named_parameters():
        assert parameter.grad is not None, name
    for name, parameter in connector["t"].named_parameters() if "t" in connector else ():
        assert (parameter.grad is None) is frozen, name


def test_the_double_pooling_is_told_once_a_side() -> None:
    sides = [side | {"sub_sample": True} for side in SIDES]
    with pytest.warns(SpecWarning, match="as MMRazor does") as caught:
        fxkd.prepare(Net(4, 0), Net(6, 1), spec(*sides), example_inputs=(images(),))
    assert len(caught) == 2


@BACKENDS
def test_a_ready_margin_and_a_student_fitted_to_it(backend: str) -> None:
    teacher, connector = Net(6, 1), OFDTeacherConnector()
    connector.adapt(teacher.norm)
    distiller = fxkd.prepare(
        Net(4, 0), teacher, spec("auto", connector, "norm"), example_inputs=(images(),), backend=backend
    )
    assert distiller.connectors["s"].conv_module.conv.weight.shape == (6, 4, 1, 1)
    assert "connectors.t.margin" not in distiller.state_dict()
    distiller(images()).loss.backward()
    assert distiller.double().connectors["t"].margin.dtype == torch.float64


def test_mistakes_are_told_with_their_place() -> None:
    given = spec({"type": "Translator", "in_channel": 5, "out_channel": 8}, {"type": "torch.nn.Relu"})
    with pytest.raises(SpecError, match=r"connectors\.t: torch\.nn has no module 'Relu'\. Did you mean 'ReLU'"):
        fxkd.prepare(Net(4, 0), Net(6, 1), given)
    given = spec({"type": "Translator", "in_channel": 5, "out_channel": 8}, None)
    with pytest.raises(SpecError, match=r"loss\.given: the connector 's' does not take .* must be in_channel, 5"):
        fxkd.prepare(Net(4, 0), Net(6, 1), given, example_inputs=(images(),))


def test_a_compiled_step() -> None:
    given = spec([{"type": "MGDConnector", "student_channels": 4, "teacher_channels": 6}, CHAIN[0]], CHAIN[0])
    found = []
    for compile_with in False, {"backend": "aot_eager"}:
        torch.manual_seed(0)
        distiller = fxkd.prepare(Net(4, 0), Net(6, 1), given, example_inputs=(images(),), compile=compile_with)
        for parameter in distiller.connectors.parameters():
            nn.init.constant_(parameter, 0.1)
        torch.manual_seed(5)
        found.append(distiller(images()).loss.detach())
    assert_same(found[1], found[0], 1e-5)
