"""How models of transformers are built, from configurations so small that weights are drawn and not downloaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.model import MODES, REFUSED, RIGHT, Call, Model, images, shaken

WORDS = 99  # in the vocabulary
BY_VALUE: dict[str, Any] = {
    "expected": REFUSED,
    "reason": "the value of a tensor decides what is run at .*name the function or method",
}
SIDE = 64  # of an image
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = SMALL | {"vocab_size": WORDS, "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = TEXT | {"num_key_value_heads": 2}  # fewer keys and values than queries
PATCHES = SMALL | {"image_size": SIDE, "patch_size": 16}
Inputs = Callable[..., Call]  # batch, and how a further call differs


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model.

    Args:
        kind: Its class.
        config: The class of its configuration.
        given: What the configuration is made of.
        inputs: Batch size -> a call.
        further: Name -> how ``inputs`` makes another call.
    """

    kind: str
    config: str
    given: Mapping[str, Any]
    inputs: Inputs
    further: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modes: tuple[str, ...] = MODES
    expected: str = RIGHT
    reason: str = ""

    def renamed(self, config: str) -> "Entry":
        """Give it a configuration whose class has a name of its own."""
        return replace(self, config=config)

    def build(self) -> nn.Module:
        import transformers

        return shaken(getattr(transformers, self.kind)(config(self.config, **self.given)()))


def models(family: str, entries: Mapping[str, Entry]) -> list[Model]:
    """Make the models of one family."""
    return [
        Model(
            name=f"transformers/{name}",
            family=f"transformers: {family}",
            build=entry.build,
            inputs=entry.inputs,
            further={call: partial(entry.inputs, **how) for call, how in entry.further.items()},
            modes=entry.modes,
            expected=entry.expected,
            reason=entry.reason,
        )
        for name, entry in entries.items()
    ]


def config(name: str, **given: Any) -> Callable[[], Any]:
    """Make a configuration, and those inside of it, when it is needed."""

    def make() -> Any:
        import transformers

        made = {key: value() if callable(value) else value for key, value in given.items()}
        return getattr(transformers, name)(**made)

    return make


# What the models are called with.


def words(batch: int, length: int = 12, seed: int = 1) -> Tensor:
    """Draw token ids (N, L) without special tokens."""
    return torch.randint(5, WORDS - 2, (batch, length), generator=torch.Generator().manual_seed(seed))


def padding(batch: int, length: int, pads: int) -> Tensor:
    """Give the mask (N, L) of sentences of which every second ends early, or begins late where ``pads`` is negative."""
    mask = torch.ones(batch, length, dtype=torch.long)
    if pads > 0:
        mask[::2, -pads:] = 0
    if pads < 0:
        mask[::2, :-pads] = 0
    return mask


def text(batch: int, length: int = 12, pads: int = 3, seed: int = 1, mask: bool = True, **constant: Any) -> Call:
    """A batch of padded sentences."""
    ids = words(batch, length, seed)
    given = {"input_ids": ids, "attention_mask": padding(batch, length, pads)} if mask else {"input_ids": ids}
    return (), given | constant


FURTHER_TEXT: dict[str, dict[str, Any]] = {
    "batch of 3": {"batch": 3, "seed": 2, "pads": 5},
    "longer": {"batch": 2, "length": 19, "seed": 3},
    "without padding": {"batch": 2, "pads": 0},
    "without mask": {"batch": 2, "mask": False},
}


def continued(batch: int, length: int = 12, pads: int = -3, seed: int = 1, mask: bool = True, **more: Any) -> Call:
    """A batch of sentences that are to go on, padded on the left, without a cache."""
    return text(batch, length, pads, seed, mask, use_cache=False, **more)


def labelled(batch: int, length: int = 12, pads: int = 3, seed: int = 1, mask: bool = True) -> Call:
    """A batch of sentences with the tokens that are to be found."""
    args, given = continued(batch, length, pads, seed, mask)
    return args, given | {"labels": given["input_ids"].masked_fill(padding(batch, length, pads) == 0, -100)}


FURTHER_CONTINUED = FURTHER_TEXT | {"batch of 3": {"batch": 3, "seed": 2, "pads": -5}}


def translated(batch: int, length: int = 12, pads: int = 3, seed: int = 1, mask: bool = True) -> Call:
    """Two batches of sentences, one to be read and one to be written."""
    args, given = continued(batch, length, pads, seed, mask)
    return args, given | {"decoder_input_ids": words(batch, length // 2, seed + 10)}


def seen(batch: int, side: int = SIDE, seed: int = 1) -> Call:
    """A batch of images."""
    return (), {"pixel_values": images(batch, side, seed=seed)}


FURTHER_SEEN: dict[str, dict[str, Any]] = {"batch of 3": {"batch": 3, "seed": 2}}
FURTHER_SIDES = FURTHER_SEEN | {"96 pixels": {"batch": 2, "side": 96, "seed": 3}}


def heard(batch: int, samples: int = 2000, pads: int = 0, seed: int = 1) -> Call:
    """A batch of sounds; every second is shorter where ``pads`` is given."""
    sound = torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))
    return (), {"input_values": sound} | ({"attention_mask": padding(batch, samples, pads)} if pads else {})


FURTHER_HEARD: dict[str, dict[str, Any]] = {
    "batch of 3": {"batch": 3, "seed": 2},
    "longer": {"batch": 2, "samples": 2600, "seed": 3},
    "padded": {"batch": 2, "pads": 500},
}
