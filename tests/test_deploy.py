"""Deployment: the copy gives what the student gives, the student stays as it is, failures say what to do."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor.utils import fresh_cache

import fxkd
from fxkd.deploy import Deployment
from fxkd.eager import ModuleOutputsRecorder
from fxkd.errors import DeployError
from fxkd.parity import compare
from tests.support.cases import CASES, REAL_CASES
from tests.support.models.cnn import Cnn
from tests.support.oracle import seed_everything

OWN = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "labels"}}}
SPEC = {
    "pairs": [{"student": "fc", "teacher": "fc", "loss": {"type": "KLDivergence"}}],
    "inputs": ["labels"],
    "student_loss": OWN,
}
LABELS = torch.zeros(3, dtype=torch.long)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
GRAPH_ONLY = {"backend": "eager"}  # Dynamo without a compiler behind it


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))
        return logits


def trained() -> Net:
    """Give a student with moved statistics, gradients and a hook, half of it in eval mode."""
    model = Net().train()
    model(IMAGES).sum().backward()
    model.fc.eval()
    model.conv.weight.requires_grad_(False)
    return model


def test_inductor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = trained()
    deployment = fxkd.deploy(model, IMAGES, path=tmp_path / "new" / "student.pt")
    assert deployment.compiled is not None
    assert 0 <= deployment.difference < 1e-5
    told = (
        f"parity: largest difference from the original {deployment.difference:.1e} (1 tensor, compiled with inductor)"
    )
    assert capsys.readouterr().out == f"{told}; written to {tmp_path / 'new' / 'student.pt'}\n"
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(deployment.compiled(IMAGES), model(IMAGES))
    loaded = Net()
    loaded.load_state_dict(torch.load(tmp_path / "new" / "student.pt", weights_only=True))
    torch.testing.assert_close(loaded.eval()(IMAGES), model(IMAGES), rtol=0, atol=0)


def test_compiled_once() -> None:
    compiled = 0

    def backend(graph_module: torch.fx.GraphModule, example_inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph_module.forward

    deployment = fxkd.deploy(trained(), IMAGES, compile={"backend": backend})
    assert deployment.compiled is not None
    with torch.no_grad():
        deployment.compiled(IMAGES)
    assert compiled == 1


def test_distiller() -> None:
    distiller = fxkd.prepare(Net(), Net(), SPEC, example_inputs={"x": IMAGES, "labels": LABELS})
    distiller(IMAGES, labels=LABELS).loss.backward()
    inputs = {"x": IMAGES, "labels": LABELS}
    deployment = fxkd.deploy(distiller, inputs, compile={"backend": "aot_eager"})
    assert type(deployment.student) is Net
    assert deployment.student is not distiller.student
    torch.testing.assert_close(deployment.student.state_dict(), distiller.student.state_dict(), rtol=0, atol=0)
    assert not any(module.training for module in deployment.student.modules())
    assert all(p.grad is None and not p.requires_grad for p in deployment.student.parameters())
    assert distiller(IMAGES, labels=LABELS).loss.requires_grad


@pytest.mark.parametrize("name", ["outputs_dict", "outputs_dataclass", "decorated_wraps", "tied", *REAL_CASES])
def test_models(name: str) -> None:
    case = (CASES | REAL_CASES)[name]
    args, kwargs = case.inputs(2)
    deployment = fxkd.deploy(case.build_student(), fxkd.Inputs(args, kwargs), compile=False)
    assert deployment.difference == 0
    assert deployment.compiled is None


@pytest.mark.parametrize("name", ["bert", "timm_resnet18", "outputs_dict"])
def test_models_compiled(name: str) -> None:
    case = (CASES | REAL_CASES)[name]
    args, kwargs = case.inputs(2)
    deployment = fxkd.deploy(case.build_student(), fxkd.Inputs(args, kwargs), compile={"backend": "aot_eager"})
    assert deployment.difference < 1e-5


def test_a_compiled_student_is_taken_out() -> None:
    model = trained()
    deployment = fxkd.deploy(torch.compile(model, backend="eager"), IMAGES, compile=False)
    assert list(deployment.student.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("compile", [False, GRAPH_ONLY])
def test_the_student_is_not_touched(compile: Any) -> None:
    model = trained()
    hooks = [model.fc.register_forward_hook(lambda module, args, output: None)]
    objects = [(module, dict(vars(module))) for module in model.modules()]
    gradients = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seed_everything(3)
    drawn = torch.rand(2)
    seed_everything(3)
    fxkd.deploy(model, IMAGES, compile=compile)
    assert torch.equal(torch.rand(2), drawn)
    assert torch.is_grad_enabled()
    for module, before in objects:
        assert vars(module).keys() == before.keys()
        assert all(vars(module)[name] is value for name, value in before.items())
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert [(p, p.grad, p.requires_grad) for p in model.parameters()] == gradients
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert list(model.fc._forward_hooks) == [hooks[0].id]


class Counting(Net):
    """Counts its calls, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("compile", [False, GRAPH_ONLY])
def test_the_copy_holds_what_the_student_holds(compile: Any, tmp_path: Path) -> None:
    deployment = fxkd.deploy(Counting(), IMAGES, compile=compile, path=tmp_path / "student.pt")
    assert deployment.student.calls == 0
    assert torch.load(tmp_path / "student.pt", weights_only=True)["calls"] == 0


def test_equal_draws_are_no_difference() -> None:
    assert fxkd.deploy(Cnn(), IMAGES, compile=False).difference == 0


# Failures


def off(graph_module: torch.fx.GraphModule, example_inputs: Any) -> Any:
    """Compile to something that is a little off."""
    return lambda *args: [1.01 * value for value in graph_module(*args)]


def test_a_difference() -> None:
    with pytest.raises(DeployError, match=r"tensor 0 .* off by \d.\de-0\d, where its values reach .* compile=False"):
        fxkd.deploy(Net(), IMAGES, compile={"backend": off})
    assert fxkd.deploy(Net(), IMAGES, compile={"backend": off}, tolerance=0.1).difference > 0


def test_compare() -> None:
    nan, inf = float("nan"), float("inf")
    assert compare([torch.tensor([nan, inf, 1.0])], [torch.tensor([nan, inf, 1.0])], 0.0) == 0
    assert compare([torch.tensor([True]), torch.tensor([2])], [torch.tensor([True]), torch.tensor([2])], 0.0) == 0
    assert compare([torch.empty(0)], [torch.empty(0)], 0.0) == 0
    for wrong in (nan, inf):
        with pytest.raises(DeployError, match=f"off by {wrong}"):
            compare([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, wrong])], 0.1)
    with pytest.raises(DeployError, match=r"gives \(2,\) torch.int64; the original \(2,\) torch.float32"):
        compare([torch.zeros(2)], [torch.zeros(2, dtype=torch.int64)], 0.1)
    with pytest.raises(DeployError, match="nothing to compare"):
        compare([], [], 0.1)


def test_no_compiler() -> None:
    patch = torch._inductor.config.patch("cpp.cxx", ("no-such-compiler",))
    with fresh_cache(), patch, pytest.raises(DeployError) as raised:
        fxkd.deploy(nn.Sequential(nn.Linear(4, 3), nn.GELU()), torch.randn(2, 4))
    assert str(raised.value) == (
        "torch.compile needs a C++ compiler such as g++ and finds none: install one, or give compile=False or another "
        "backend such as compile={'backend': 'aot_eager'}"
    )


def test_what_cannot_be_compiled() -> None:
    with pytest.raises(
        DeployError, match=r"torch.compile failed with InvalidBackend: .*'nonsense'.*; give compile=False"
    ):
        fxkd.deploy(Net(), IMAGES, compile={"backend": "nonsense"})


def test_parts_of_fxkd() -> None:
    model = Net()
    recorder = ModuleOutputsRecorder("conv")
    recorder.initialize(model)
    with recorder, pytest.raises(DeployError, match="still holds parts of fxkd: 'conv'; leave the recorders"):
        fxkd.deploy(model, IMAGES, compile=False)
    fxkd.deploy(model, IMAGES, compile=False)


def test_what_cannot_be_copied() -> None:
    model = Net()
    model.lock = threading.Lock()
    with pytest.raises(DeployError, match="the student cannot be copied: TypeError: cannot pickle"):
        fxkd.deploy(model, IMAGES)


class Extra(Net):
    def get_extra_state(self) -> Any:
        return Deployment

    def set_extra_state(self, state: Any) -> None:
        pass


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"holds more than tensors .*get_extra_state"):
        fxkd.deploy(Extra(), IMAGES, compile=False, path=tmp_path / "student.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "student.onnx"}, "path: cannot write 'student.onnx'; there is '.pt'"),
        ({"compile": "inductor"}, "compile: is 'inductor'; give True, False or a dict"),
        ({"example_inputs": torch.ones(1, 4, 8, 8)}, "does not run on example_inputs in eval mode: RuntimeError at "),
        ({"distiller": "student.pt"}, "a str cannot be deployed: give a distiller or the student"),
    ],
)
def test_what_is_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DeployError, match=message):
        fxkd.deploy(**{"distiller": Net(), "example_inputs": IMAGES} | options)
