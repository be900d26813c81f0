"""Everything that people give to models: nested, named, optional, of classes of their own."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers.modeling_outputs import BaseModelOutput

import fxkd
from fxkd.errors import CaptureError
from tests.support.beside_hooks import assert_equals_hooks, one_point


@dataclasses.dataclass
class Batch:
    """Images and what is known of them."""

    image: Tensor
    sizes: list[Tensor]
    name: str = "batch"


pytree.register_dataclass(Batch)


class Net(nn.Module):
    """Takes whatever it is given apart."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(
        self, given: Any, extra: Any = None, *, scale: float = 1.0, how: str = "sum", repeat: int = 1
    ) -> dict[str, Any]:
        x, rest = self.taken_apart(given)
        x = self.one(x) * scale
        for _ in range(repeat):
            x = x.tanh()
        if extra is not None:
            x = x + extra["add"][0]
        x = x.sum(1, keepdim=True) * x if how == "sum" else x
        return {"logits": self.two(x), "rest": rest}

    def taken_apart(self, given: Any) -> tuple[Tensor, Any]:
        if isinstance(given, Batch):
            return given.image + given.sizes[0], given.name
        if isinstance(given, dict):
            return given["deep"][0]["x"] - given["y"], None
        return given, None


def rows(batch: int, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(10 * batch + seed))


def nested(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ({"deep": [{"x": rows(batch)}, None], "y": rows(batch, seed=1)},), {}


def of_a_class(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (Batch(rows(batch), [rows(batch, seed=1)]),), {}


def optional(batch: int, **more: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rows(batch),), more


@pytest.mark.parametrize("call", [nested, of_a_class, optional])
def test_one_graph_for_all_sizes(call: Any) -> None:
    distiller = assert_equals_hooks(Net(), Net(), one_point("one"), [call(2), call(5), call(3)])
    assert len(distiller.programs) == 1


def test_other_arguments_are_captured_too() -> None:
    calls = [
        optional(2),
        optional(2, extra={"add": [rows(2, 6)]}),
        optional(3, extra={"add": [rows(3, 6)]}, scale=2.5),
        optional(3, scale=2.5),
        optional(4, how="none"),
        optional(4, repeat=3),
        nested(2),
        of_a_class(2),
        optional(5),
    ]
    distiller = assert_equals_hooks(Net(), Net(), one_point("one"), calls)
    assert len(distiller.programs) == 8, "one for each form of the call, and none for another batch"


def test_a_number_that_changes_at_each_call_is_captured_at_each() -> None:
    calls = [optional(2, scale=1 + step / 8) for step in range(4)]
    distiller = assert_equals_hooks(Net(), Net(), one_point("one"), calls)
    assert len(distiller.programs) == 4


def test_a_changed_constant_is_refused_in_a_compiled_step() -> None:
    torch._dynamo.reset()
    distiller = fxkd.prepare(Net(), Net(), one_point("one"), example_inputs=fxkd.Inputs((rows(2),), {"scale": 2.0}))
    step = torch.compile(distiller, backend="eager", fullgraph=True)
    step(rows(2), scale=2.0)
    with pytest.raises(Exception, match="call the distiller once outside"):
        step(rows(2), scale=3.0)


class Unregistered:
    """Holds a tensor, and nobody knows."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def test_a_tensor_in_an_unregistered_object_is_refused_with_advice() -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, given: Unregistered) -> Tensor:
            return self.one(given.x)

    with pytest.raises(CaptureError, match=r"its tensors would be frozen. Register the class \(torch.utils._pytree"):
        fxkd.prepare(Takes(), Takes(), one_point("one"), example_inputs=(Unregistered(rows(2)),))


def t5() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()


def bert() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 99, "num_hidden_layers": 2}
    config = transformers.BertConfig(**sizes, num_attention_heads=4, initializer_range=0.4)
    return transformers.BertForSequenceClassification(config).eval()


def words(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 98, (batch, length), generator=torch.Generator().manual_seed(10 * batch + seed))


def test_an_output_of_transformers_as_an_argument() -> None:
    def call(batch: int) -> Any:
        encoded = BaseModelOutput(last_hidden_state=torch.randn(batch, 5, 16))
        return (), {"encoder_outputs": encoded, "decoder_input_ids": words(batch, 4)}

    distiller = assert_equals_hooks(t5(), t5(), one_point("decoder.block.1", data_idx=0), [call(2), call(3)])
    assert len(distiller.programs) == 2, "as it is evaluated, and as it trains"


def test_optional_arguments_of_transformers() -> None:
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, -2:] = 0
    calls: list[Any] = [
        ((), {"input_ids": words(2, 6), "attention_mask": mask}),
        ((), {"input_ids": words(3, 6)}),
        ((), {"input_ids": words(2, 6), "attention_mask": mask, "output_hidden_states": True}),
        ((), {"inputs_embeds": torch.randn(2, 6, 16)}),
        ((), {"input_ids": words(2, 6), "labels": torch.tensor([0, 1])}),
        ((words(2, 6),), {}),
        ((), {"input_ids": words(4, 5), "attention_mask": torch.ones(4, 5, dtype=torch.long)}),
    ]
    distiller = assert_equals_hooks(bert(), bert(), one_point("bert.encoder.layer.1"), calls)
    assert len(distiller.programs) == 6
