"""Objects that a forward makes at each call and fills on its way, as the caches of language models are."""

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError


def words(batch: int, length: int = 7) -> dict[str, Tensor]:
    """Give ids of words and a mask, the last two of the first row left out."""
    ids = torch.randint(3, 98, (batch, length), generator=torch.Generator().manual_seed(batch))
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def llama() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 99, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, **heads, max_position_embeddings=64, initializer_range=0.4)
    return transformers.LlamaForCausalLM(config).double()


@pytest.mark.parametrize("path", ["model.layers.0", "model.layers.1.mlp", "model.layers.0.self_attn.q_proj"])
@pytest.mark.parametrize("train", [True, False])
def test_a_cache_is_new_at_each_call(path: str, train: bool) -> None:
    model = llama().train(train)
    own, kept = copy.deepcopy(model), []
    own.get_submodule(path).register_forward_hook(lambda module, args, output: kept.append(output))
    recorded = fxkd.record(model, {"x": path}, example_inputs=words(2))
    for batch, length in ((2, 7), (2, 7), (3, 5)):
        kept.clear()
        expected = own(**words(batch, length))
        output, records = recorded(**words(batch, length))
        torch.testing.assert_close(output.logits, expected.logits)
        torch.testing.assert_close(records["x"], kept)
        assert type(output.past_key_values) is type(expected.past_key_values)
        for one, other in zip(output.past_key_values.layers, expected.past_key_values.layers, strict=True):
            torch.testing.assert_close((one.keys, one.values), (other.keys, other.values))
        output.logits.sum().backward()
        expected.logits.sum().backward()
    for mine, theirs in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


class Notes:
    """Something that tensors are put into."""

    def __init__(self) -> None:
        self.found: list[Any] = []


class Noting(nn.Module):
    """Adds up what it was given before."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, notes: Notes) -> Tensor:
        notes.found.append(self.fc(x))
        return sum(notes.found)


class Net(nn.Module):
    """Two layers with one object between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Noting(), Noting()

    def forward(self, x: Tensor) -> Tensor:
        notes = Notes()
        return self.two(self.one(x, notes), notes)


def test_any_other_object_is_refused() -> None:
    told = r"the forward makes an object 'Notes' at each call, and gives it.*use_cache=False.*backend='eager'"
    with pytest.raises(CaptureError, match=told):
        fxkd.record(Net(), ["one"], example_inputs=torch.randn(3, 4))


def test_compiled_whole() -> None:
    torch._dynamo.reset()
    model = llama()
    distiller = fxkd.prepare(
        model,
        llama(),
        {"pairs": [{"student": "model.layers.0", "teacher": "model.layers.1", "loss": {"type": "L1Loss"}}]},
        example_inputs=words(2),
    )
    expected = distiller(**words(2)).loss
    compiled = torch.compile(distiller, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(**words(2)).loss, expected)


UPDATE = "transformers.cache_utils.Cache.update"


def test_a_named_method_fills_a_cache_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, point = llama(), {"type": "MethodOutputs", "source": UPDATE}
    own, kept = copy.deepcopy(model), list[Any]()
    recorded = fxkd.record(model, {"filled": point}, example_inputs=words(2))
    update = transformers.cache_utils.Cache.update

    def noted(*args: Any, **kwargs: Any) -> Any:
        kept.append(update(*args, **kwargs))
        return kept[-1]

    for batch, length in ((2, 7), (3, 5)):
        kept.clear()
        with monkeypatch.context() as patch:
            patch.setattr(transformers.cache_utils.Cache, "update", noted)
            expected = own(**words(batch, length))
        output, records = recorded(**words(batch, length))
        torch.testing.assert_close(records["filled"], kept)
        assert len(kept) == 3
        for one, other in zip(output.past_key_values.layers, expected.past_key_values.layers, strict=True):
            torch.testing.assert_close((one.keys, one.values), (other.keys, other.values))
        (output.logits.sum() + sum(keys.square().sum() for keys, _ in records["filled"])).backward()
        (expected.logits.sum() + sum(keys.square().sum() for keys, _ in kept)).backward()
    for mine, theirs in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_delivery_to_what_fills_a_cache_is_refused() -> None:
    told = r"what 'transformers.cache_utils.Cache.update' gives is replaced, and the function also puts tensors into"
    delivery = {"type": "MethodOutputs", "max_keep_data": 3, "method_path": UPDATE}
    with pytest.raises(CaptureError, match=told):
        fxkd.prepare(llama(), llama(), {"distill_deliveries": {"filled": delivery}}, example_inputs=words(2))
