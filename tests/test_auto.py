"""``connector: auto``: chosen by the captured shapes before anything is built, then a connector like any other."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import fxkd
from fxkd.connectors import ConvModuleConnector, LinearConnector
from fxkd.errors import CaptureError, SpecError
from fxkd.spec import Spec
from tests.support.oracle import assert_same

BACKENDS = pytest.mark.parametrize("backend", ["graph", "eager"])
HERE = __name__


class Net(nn.Module):
    """A map, tokens, a vector, two maps in a tuple; ``rough`` models cannot be captured."""

    def __init__(self, width: int, seed: int = 0, side: int = 1, rough: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rough = rough
        self.conv = nn.Conv2d(3, width, 3, side, 1)
        self.norm = nn.BatchNorm2d(width)
        self.tokens = nn.Linear(width, 2 * width)
        self.pool = nn.AdaptiveMaxPool2d(2, return_indices=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        if self.rough and float(x.detach().sum()) > -1:
            x = x * 1.5
        self.tokens(x.flatten(2).mT)
        self.pool(x)
        return self.head(x.mean((2, 3)))


def batch(seed: int = 0, n: int = 2) -> Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def pair(student: Any, teacher: Any = None, **more: Any) -> dict[str, Any]:
    given = {"student": student, "teacher": teacher or student, "loss": {"type": "L2Loss"}, "name": "loss"}
    return {"pairs": [given | (more or {"student_connector": "auto"})]}


def prepared(spec: Any, student: nn.Module | None = None, teacher: nn.Module | None = None, **more: Any) -> Any:
    student, teacher = student or Net(4), teacher or Net(6, seed=1)
    return fxkd.prepare(student, teacher, spec, **{"example_inputs": batch(), **more})


def problem(spec: Any, **more: Any) -> str:
    with pytest.raises(SpecError) as caught:
        prepared(spec, **more)
    (found,) = caught.value.problems
    return found


# What is chosen


@BACKENDS
def test_a_map_gets_a_convolution_without_norm_and_activation(backend: str) -> None:
    distiller = prepared(pair("norm"), backend=backend)
    connector = distiller.connectors["loss_student"]
    assert isinstance(connector, ConvModuleConnector)
    assert [type(layer) for layer in connector.conv_module] == [nn.Conv2d]
    assert connector.conv_module.conv.weight.shape == (6, 4, 1, 1)
    assert connector.conv_module.conv.bias.shape == (6,)
    assert distiller.spec.connectors == {
        "loss_student": {"type": "ConvModuleConnector", "in_channel": 4, "out_channel": 6, "act_cfg": None}
    }


@BACKENDS
@pytest.mark.parametrize(("point", "sizes"), [("head", None), ("tokens", (8, 12))])
def test_a_vector_and_tokens_get_a_linear_map(backend: str, point: str, sizes: tuple[int, int] | None) -> None:
    connector = prepared(pair(point), backend=backend).connectors["loss_student"]
    if sizes is None:
        assert type(connector) is nn.Identity  # heads of equal width
    else:
        assert isinstance(connector, LinearConnector)
        assert (connector.linear.in_features, connector.linear.out_features) == sizes


def test_vectors_of_other_widths() -> None:
    teacher = Net(6)
    teacher.head = nn.Linear(6, 9)
    connector = prepared(pair("head"), teacher=teacher).connectors["loss_student"]
    assert connector.linear.weight.shape == (9, 5)


@BACKENDS
@pytest.mark.parametrize(
    ("points", "student", "teacher", "types"),
    [
        (("norm", "norm"), Net(4), Net(6, side=2), ["ResizeConnector", "ConvModuleConnector"]),
        (("norm", "norm"), Net(4, side=2), Net(6), ["ConvModuleConnector", "ResizeConnector"]),
        (("norm", "tokens"), Net(4), Net(6), ["ConvModuleConnector", "MapToTokensConnector"]),
        (("tokens", "norm"), Net(4), Net(6), ["TokensToMapConnector", "ConvModuleConnector"]),
        (("norm", "head"), Net(4), Net(6), ["torch.nn.AdaptiveAvgPool2d", "torch.nn.Flatten", "LinearConnector"]),
    ],
)
def test_a_chain(
    backend: str, points: tuple[str, str], student: nn.Module, teacher: nn.Module, types: list[str], tmp_path: Path
) -> None:
    distiller = prepared(pair(*points), student, teacher, backend=backend)
    chosen = distiller.spec.connectors["loss_student"]
    assert [step["type"] for step in chosen] == types
    out = distiller(batch())
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in distiller.connectors.parameters())
    again = written_and_read(pair(*points), chosen, tmp_path)
    assert again.connectors == distiller.spec.connectors
    copied = fxkd.prepare(student, teacher, again)
    copied.load_state_dict(distiller.state_dict())
    assert_same(copied(batch()).loss.detach(), out.loss.detach(), 1e-5)


def written_and_read(spec: Any, chosen: Any, folder: Path) -> Spec:
    """Write a spec with a chosen connector as YAML, and read it."""
    steps = [dict(step) for step in chosen]
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"pairs": [spec["pairs"][0] | {"student_connector": steps}]}))
    return Spec.load(path)


def test_the_teachers_side() -> None:
    distiller = prepared(pair("norm", teacher_connector="auto"))
    assert distiller.connectors["loss_teacher"].conv_module.conv.weight.shape == (4, 6, 1, 1)
    assert distiller(batch()).losses["loss"].requires_grad


@BACKENDS
@pytest.mark.parametrize("form", ["auto", {"type": "auto"}])
def test_the_long_form_and_a_partner_behind_a_connector(backend: str, form: Any) -> None:
    recorders = {"feat": {"type": "ModuleOutputs", "source": "norm"}}
    spec = {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {"fit": form, "wide": {"type": "ConvModuleConnector", "in_channel": 6, "out_channel": 7}},
        "distill_losses": {"loss": {"type": "L2Loss"}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": {"recorder": "feat", "from_student": True, "connector": "fit"},
                "t_feature": {"recorder": "feat", "from_student": False, "connector": "wide"},
            }
        },
    }
    distiller = prepared(spec, backend=backend)
    assert distiller.connectors["fit"].conv_module.conv.weight.shape == (7, 4, 1, 1)


@BACKENDS
def test_a_partner_that_is_set_by_its_module(backend: str) -> None:
    """The margins come from the teacher's norm; the size is the feature's."""
    distiller = prepared(
        pair("norm", student_connector="auto", teacher_connector={"type": "OFDTeacherConnector"}), backend=backend
    )
    assert distiller.connectors["loss_student"].conv_module.conv.weight.shape == (6, 4, 1, 1)
    assert distiller.connectors["loss_teacher"].margin.shape == (1, 6, 1, 1)
    assert distiller(batch()).losses["loss"].requires_grad


@BACKENDS
def test_a_part_of_a_record(backend: str) -> None:
    spec = pair({"type": "ModuleOutputs", "source": "pool", "data_idx": 0})
    assert prepared(spec, backend=backend).connectors["loss_student"].conv_module.conv.weight.shape == (6, 4, 1, 1)


def test_arguments_for_the_losses_are_no_arguments_of_the_models() -> None:
    own = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}
    inputs = {"x": batch(), "labels": torch.tensor([0, 1])}
    distiller = prepared(pair("norm") | {"inputs": ["labels"], "student_loss": own}, example_inputs=inputs)
    assert isinstance(distiller.connectors["loss_student"], ConvModuleConnector)


@BACKENDS
def test_the_first_of_several_calls_sizes_it(backend: str) -> None:
    distiller = prepared(pair("norm"), example_inputs=[batch(), batch(1, 3)], backend=backend)
    assert distiller.connectors["loss_student"].conv_module.conv.weight.shape == (6, 4, 1, 1)


def test_the_teacher_is_looked_at_in_the_mode_in_which_it_runs() -> None:
    """A batch norm in train mode refuses one value a channel; in eval mode it takes it."""
    one = torch.randn(1, 3, 1, 1)
    student, teacher = Net(4).eval(), Net(6)
    spec = pair("conv")
    with pytest.raises(CaptureError, match="teacher: does not run on these inputs"):
        prepared(spec, student, teacher, example_inputs=one, backend="eager", teacher_mode="train")
    prepared(spec, student, teacher, example_inputs=one, backend="eager")


def test_a_model_that_cannot_be_captured_runs_once_instead() -> None:
    student, teacher = Net(4, rough=True), Net(6, seed=1)
    before = copy.deepcopy(student.state_dict())
    distiller = prepared(pair("norm"), student, teacher, backend="eager")
    assert distiller.connectors["loss_student"].conv_module.conv.weight.shape == (6, 4, 1, 1)
    for name, value in before.items():
        assert torch.equal(student.state_dict()[name], value), name
    distiller(batch()).loss.backward()


class ByNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(doubled(x))


def doubled(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy() * 2)


def test_a_named_function_that_runs_on_values_only() -> None:
    kept_whole = {"double": {"type": "FunctionOutputs", "source": f"{HERE}.doubled"}}
    spec = pair("norm") | {"student_recorders": kept_whole, "teacher_recorders": kept_whole}
    distiller = prepared(spec, ByNumpy(4), ByNumpy(6))
    assert distiller.connectors["loss_student"].conv_module.conv.weight.shape == (6, 4, 1, 1)
    assert distiller(batch(1)).loss.requires_grad


def test_models_are_left_as_they_were() -> None:
    student, teacher = Net(4), Net(6)
    kept = [copy.deepcopy(model.state_dict()) for model in (student, teacher)]
    with pytest.raises(SpecError):
        prepared(pair("head", "norm"), student, teacher)
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    for model, before in zip((student, teacher), kept, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# What it is then


def trained(backend: str, **more: Any) -> tuple[Any, list[Tensor]]:
    distiller = prepared(pair("norm"), backend=backend, **more)
    torch.manual_seed(7)
    for parameter in distiller.connectors.parameters():
        torch.nn.init.normal_(parameter)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        loss = distiller(batch(step)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return distiller, losses


def by_hand() -> tuple[dict[str, Tensor], list[Tensor]]:
    """The same three steps in plain PyTorch."""
    student, teacher, connector = Net(4), Net(6, seed=1).eval().requires_grad_(False), nn.Conv2d(4, 6, 1)
    torch.manual_seed(7)
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter)
    optimizer = torch.optim.SGD([*student.parameters(), *connector.parameters()], lr=0.05)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        given = connector(student.norm(student.conv(batch(step)))).flatten(1)
        wanted = teacher.norm(teacher.conv(batch(step))).flatten(1)
        loss = (nn.functional.normalize(given) - nn.functional.normalize(wanted)).square().sum() / 2
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"conv": student.conv.weight, "connector": connector.weight}, losses


@BACKENDS
def test_three_steps_equal_those_by_hand(backend: str) -> None:
    expected, losses = by_hand()
    distiller, found = trained(backend)
    assert_same(found, losses, 1e-5)
    weight = distiller.connectors["loss_student"].conv_module.conv.weight
    assert_same(weight.detach(), expected["connector"].detach(), 1e-5)
    assert_same(distiller.student.conv.weight.detach(), expected["conv"].detach(), 1e-5)
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_compiled_steps_equal_eager_ones() -> None:
    _, losses = by_hand()
    _, found = trained("graph", compile={"backend": "aot_eager"})
    assert_same(found, losses, 1e-5)


def test_a_compiled_distiller() -> None:
    distiller = prepared(pair("norm"))
    expected = distiller(batch(3)).loss
    assert_same(torch.compile(distiller, backend="aot_eager")(batch(3)).loss.detach(), expected.detach(), 1e-5)


@BACKENDS
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_keep_the_connector(backend: str, how: str) -> None:
    distiller, _ = trained(backend)
    if how == "deepcopy":
        other = copy.deepcopy(distiller)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(distiller))
    else:
        file = io.BytesIO()
        torch.save(distiller, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert other.spec == distiller.spec
    for name, value in distiller.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert_same(other(batch(9)).loss.detach(), distiller(batch(9)).loss.detach(), 1e-6)


def test_a_state_dict_fits_a_distiller_made_of_the_chosen_spec() -> None:
    distiller, _ = trained("graph")
    again = fxkd.prepare(Net(4, seed=5), Net(6, seed=1), distiller.spec)
    again.load_state_dict(distiller.state_dict())
    assert_same(again(batch(9)).loss.detach(), distiller(batch(9)).loss.detach(), 1e-5)


# What is refused


@BACKENDS
def test_auto_needs_example_inputs(backend: str) -> None:
    found = problem(pair("norm"), example_inputs=None, backend=backend)
    assert found.startswith("connectors.loss_student: is 'auto'")
    assert "give prepare example_inputs" in found
    assert "missing from an optimizer" in found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (pair("head", "norm"), ["cannot make (2, 5) fit (2, 6, 6, 6)", "put 'auto' on the other side"]),
        (pair("pool"), ["is a tuple of 2", "use data_idx"]),
        (pair("norm", student_connector=["auto"]), ["a connector is built from", "'auto'"]),
        (pair("norm", student_connector={"type": "auto", "kernel_size": 3}), ["takes no arguments", "'kernel_size'"]),
    ],
)
def test_what_cannot_be_chosen(spec: Any, words: list[str]) -> None:
    found = problem(spec)
    for word in words:
        assert word in found


@BACKENDS
def test_both_sides_are_refused(backend: str) -> None:
    with pytest.raises(SpecError) as caught:
        prepared(pair("norm", student_connector="auto", teacher_connector="auto"), backend=backend)
    one, other = caught.value.problems
    assert one.startswith("loss_forward_mappings.loss.s_feature: both sides are 'auto', so neither has a size to fit")
    assert other.startswith("loss_forward_mappings.loss.t_feature: both sides are 'auto'")
    assert "write out 'loss_teacher'" in one


def test_tokens_of_other_numbers() -> None:
    found = problem(pair("tokens"), teacher=Net(6, side=2))
    assert "(2, 36, 8) fit (2, 9, 12)" in found
    assert "Conv1d" in found


def test_one_connector_in_two_places_of_other_sizes() -> None:
    recorders = {name: {"type": "ModuleOutputs", "source": name} for name in ("norm", "tokens")}
    spec = {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {"fit": "auto"},
        "distill_losses": {f"loss_{name}": {"type": "L2Loss"} for name in recorders},
        "loss_forward_mappings": {
            f"loss_{name}": {
                "s_feature": {"recorder": name, "from_student": True, "connector": "fit"},
                "t_feature": {"recorder": name, "from_student": False},
            }
            for name in recorders
        },
    }
    found = problem(spec)
    assert found.startswith("connectors.fit: is 'auto'")
    assert "ConvModuleConnector" in found
    assert "LinearConnector" in found
    assert "a connector of its own" in found


def test_a_connector_that_no_loss_reads() -> None:
    assert "no argument of a loss goes through it" in problem(pair("norm", name="loss") | {"connectors": {"x": "auto"}})


class Three(nn.Module):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (a - b - c).square().mean()


def test_a_loss_with_two_values_of_the_teacher() -> None:
    recorders = {name: {"type": "ModuleOutputs", "source": name} for name in ("norm", "conv")}
    spec = {
        "student_recorders": {"norm": recorders["norm"]},
        "teacher_recorders": recorders,
        "connectors": {"fit": "auto"},
        "distill_losses": {"loss": Three()},
        "loss_forward_mappings": {
            "loss": {
                "a": {"recorder": "norm", "from_student": True, "connector": "fit"},
                "b": {"recorder": "norm", "from_student": False},
                "c": {"recorder": "conv", "from_student": False},
            }
        },
    }
    found = problem(spec)
    assert "the one value of the teacher that the loss reads, and there are 2 ('b', 'c')" in found
