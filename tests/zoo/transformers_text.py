"""Encoders and encoder-decoders of transformers."""

from typing import Any

from tests.zoo.transformers_family import (
    BY_VALUE,
    FURTHER_TEXT,
    TEXT,
    WORDS,
    Call,
    Entry,
    models,
    text,
    translated,
)


def encoder(name: str, given: dict[str, Any] = TEXT, **options: Any) -> Entry:
    """A model that reads a sentence and names its class."""
    options = {"inputs": text, "further": FURTHER_TEXT} | options
    return Entry(kind=f"{name}ForSequenceClassification", config=f"{name}Config", given=given, **options)


def looked_into(batch: int, length: int = 12, pads: int = 3, seed: int = 1, mask: bool = True) -> Call:
    """Ask for everything that the model can give."""
    return text(batch, length, pads, seed, mask, output_attentions=True, output_hidden_states=True)


WITHOUT_MASK = {name: how for name, how in FURTHER_TEXT.items() if name != "without padding"}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": WORDS}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": WORDS}
FUNNEL = {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "vocab_size": WORDS}
MOBILE = TEXT | {"embedding_size": 32, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}

ENCODERS = {
    "bert": encoder("Bert"),
    "bert_eager": encoder("Bert", TEXT | {"attn_implementation": "eager"}, inputs=looked_into),
    "distilbert": encoder("DistilBert", DISTIL),
    "roberta": encoder("Roberta"),
    "albert": encoder("Albert", TEXT | {"embedding_size": 16, "num_hidden_groups": 1}),
    "electra": encoder("Electra", TEXT | {"embedding_size": 16}),
    "deberta_v2": encoder("DebertaV2", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "mobilebert": encoder("MobileBert", MOBILE),
    "convbert": encoder("ConvBert", TEXT | {"embedding_size": 16, "head_ratio": 2}),
    "modernbert": encoder("ModernBert", TEXT | {"global_attn_every_n_layers": 2, "local_attention": 8}),
    "longformer": encoder("Longformer", TEXT | {"attention_window": 4}, **BY_VALUE),
    "big_bird": encoder("BigBird", TEXT | {"attention_type": "original_full"}),
    "fnet": encoder("FNet", TEXT, inputs=lambda batch, **how: text(batch, **{**how, "mask": False})),
    "funnel": encoder("Funnel", FUNNEL),
    "xlnet": encoder("XLNet", XLNET),
    "mpnet": encoder("MPNet"),
    "squeezebert": encoder("SqueezeBert", TEXT | {"embedding_size": 32}),
}


PADDED = {name: how for name, how in FURTHER_TEXT.items() if not name.startswith("without")}


def both(name: str, given: dict[str, Any], **options: Any) -> Entry:
    """A model that reads one sentence and writes another."""
    options = {"inputs": translated, "further": FURTHER_TEXT} | options
    return Entry(kind=f"{name}ForConditionalGeneration", config=f"{name}Config", given=given, **options)


SIDES = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
BART = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in SIDES.items()}
BART |= {"d_model": 32, "vocab_size": WORDS, "max_position_embeddings": 64, "pad_token_id": 0}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": WORDS}
SWITCH = T5 | {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
START = {"decoder_start_token_id": 0}
MARIAN = Entry(kind="MarianMTModel", config="MarianConfig", given=BART | START, inputs=translated, further=FURTHER_TEXT)

ENCODER_DECODERS = {
    "t5": both("T5", T5 | START),
    "umt5": both("UMT5", T5 | START, further=PADDED),  # its bias has another shape where a mask of ones is skipped
    "switch_transformers": both("SwitchTransformers", SWITCH | START, **BY_VALUE),
    "bart": both("Bart", BART),
    "mbart": both("MBart", BART | {"encoder_layerdrop": 0.0}),
    "pegasus": both("Pegasus", BART),
    "marian": MARIAN,
}

MODELS = models("encoders", ENCODERS) + models("encoder-decoders", ENCODER_DECODERS)
