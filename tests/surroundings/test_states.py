"""Models in the states in which people have them: checkpointed, parametrised, quantised, wrapped, hooked."""

import copy
import warnings
from typing import Any

import peft
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.nn.utils import parametrizations

import fxkd
from fxkd.errors import CaptureError, FxkdError, SpecError
from tests.support.beside_hooks import assert_equals_hooks, one_point


def bert() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 99, "num_hidden_layers": 2}
    config = transformers.BertConfig(**sizes, num_attention_heads=4, initializer_range=0.4)
    return transformers.BertForSequenceClassification(config)


def words(batch: int, length: int = 6) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids = torch.randint(3, 98, (batch, length), generator=torch.Generator().manual_seed(batch))
    return (), {"input_ids": ids}


def rows(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch)),), {}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("path", ["bert.encoder.layer.0", "bert.encoder.layer.1.output.dense"])
def test_checkpointing_of_the_models_own(path: str) -> None:
    student = bert().train()
    student.activation_checkpointing_enable({"use_reentrant": False})
    assert_equals_hooks(student, bert(), one_point(path), [words(2), words(3), words(2, 4)])


def test_reentrant_checkpointing_around_a_point_is_refused() -> None:
    student = bert().train()
    student.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(CaptureError, match=r"called inside CheckpointFunction.*use_reentrant=False"):
        fxkd.prepare(student, bert(), one_point("bert.encoder.layer.1.output.dense"), example_inputs=words(2)[1])


@pytest.mark.parametrize("autocast", ["inside", "outside"])
def test_autocast(autocast: str) -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                x = self.one(x)
            return self.two(x.float())

    def around(run: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast == "outside"):
            return run()

    build = Casting if autocast == "inside" else net
    path = "one" if autocast == "inside" else "3"
    distiller = assert_equals_hooks(build(), build(), one_point(path), [rows(2), rows(5)], around)
    assert distiller.graph_module is not None


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
@pytest.mark.parametrize("path", ["3", "5"])
def test_parametrised_layers(name: str, path: str) -> None:
    student = net()
    getattr(parametrizations, name)(student[3])
    assert_equals_hooks(student.train(), net(), one_point(path), [rows(2), rows(5), rows(3)])


def test_a_weight_that_a_hook_makes() -> None:
    calls, student, plain = [rows(2), rows(5)], net(), net()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the old form of weight_norm
        nn.utils.weight_norm(student[3])
        nn.utils.weight_norm(plain[3])
    distiller = fxkd.prepare(student, net(), one_point("4"), example_inputs=calls[0][0])
    for args, _ in calls:
        taken = []
        with plain[4].register_forward_hook(lambda module, args, output, taken=taken: taken.append(output)):
            plain(*args)
        guide = nn.Sequential(*net().eval()[:5])(*args)
        torch.testing.assert_close(distiller(*args).loss, (taken[0] - guide).abs().mean())


def adapted(model: nn.Module) -> nn.Module:
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's, of what transformers renamed
        return peft.get_peft_model(model, config)


@pytest.mark.parametrize("train", [True, False])
def test_low_rank_adapters_of_peft(train: bool) -> None:
    student = adapted(bert()).train(train)
    path = "base_model.model.bert.encoder.layer.1.attention.self.query"
    spec = one_point(path)
    spec["teacher_recorders"] = one_point("bert.encoder.layer.1.attention.self.query")["teacher_recorders"]
    distiller = assert_equals_hooks(student, bert(), spec, [words(2), words(3)])
    trained = [name for name, parameter in distiller.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_the_path_before_the_adapters_is_answered_with_the_one_now() -> None:
    with pytest.raises(SpecError, match=r"Did you mean 'base_model\.model\.bert\.encoder\.layer\.1'"):
        fxkd.prepare(adapted(bert()), bert(), one_point("bert.encoder.layer.1"), example_inputs=words(2)[1])


def test_adapters_put_in_after_prepare() -> None:
    student = bert().eval()
    distiller = fxkd.prepare(student, bert(), one_point("bert.encoder.layer.1"), example_inputs=words(2)[1])
    before = distiller(**words(2)[1]).loss
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False), student
    )
    out = distiller(**words(2)[1])
    assert out.loss != before
    out.loss.backward()
    plain, guide = copy.deepcopy(student), bert().eval()
    taken = []
    for model in (plain, guide):
        layer = model.bert.encoder.layer[1]
        with layer.register_forward_hook(lambda module, args, output: taken.append(output)):
            model(**words(2)[1])
    torch.testing.assert_close(out.loss, (taken[0] - taken[1]).abs().mean())


def test_fake_quantisation() -> None:
    student = net()
    student[2] = nn.Sequential(nn.ReLU(), FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255))
    assert_equals_hooks(student.train(), copy.deepcopy(student), one_point("3"), [rows(4), rows(5), rows(4)])


def test_hooks_inside_leaves() -> None:
    student, seen = timm.create_model("resnet18", num_classes=5).eval(), []
    student.layer2[0].conv1.register_forward_hook(lambda module, args, output: seen.append(output.shape) or output * 2)
    student.layer2[0].bn1.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    call = ((torch.randn(2, 3, 32, 32),), {})
    assert_equals_hooks(student, timm.create_model("resnet18", num_classes=5), one_point("layer3"), [call, call])
    assert len(seen) > 2


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_wrappers_are_told_from_paths(prefix: str) -> None:
    with pytest.raises(SpecError, match=r"Did you mean '3'\?"):
        fxkd.prepare(net(), net(), one_point(f"{prefix}3"), example_inputs=rows(2)[0])


def test_a_teacher_without_values_is_refused() -> None:
    with pytest.raises(FxkdError, match="meta"):
        fxkd.prepare(net(), net().to("meta"), one_point("3"), example_inputs=rows(2)[0])
