"""Models of transformers for sound, for several senses at once, and for series."""

from typing import Any

import torch

from tests.zoo.model import Call, images
from tests.zoo.transformers_family import (
    BY_VALUE,
    FURTHER_HEARD,
    FURTHER_SEEN,
    PATCHES,
    SIDE,
    SMALL,
    TEXT,
    WORDS,
    Entry,
    heard,
    models,
    padding,
    words,
)
from tests.zoo.transformers_text import BART

WAV2VEC2: dict[str, Any] = SMALL | {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}
MASKED = {"mask_time_prob": 0.05, "mask_time_length": 2}
DROPPED = {"layerdrop": 0.3}
AST = SMALL | {"max_length": 48, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
WHISPER = BART | {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20}
WHISPER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


def classifier(name: str, given: dict[str, Any], **options: Any) -> Entry:
    """A model that names what is heard."""
    options = {"inputs": heard, "further": FURTHER_HEARD} | options
    return Entry(kind=f"{name}ForSequenceClassification", config=f"{name}Config", given=given, **options)


def spectra(batch: int, seed: int = 1) -> Call:
    """A batch of sounds as times and frequencies."""
    return (), {"input_values": torch.randn(batch, 48, 16, generator=torch.Generator().manual_seed(seed))}


def transcribed(batch: int, seed: int = 1, length: int = 6) -> Call:
    """A batch of sounds, and the words so far."""
    features = torch.randn(batch, 8, 40, generator=torch.Generator().manual_seed(seed))
    return (), {"input_features": features, "decoder_input_ids": words(batch, length, seed), "use_cache": False}


AUDIO = {
    "wav2vec2": classifier("Wav2Vec2", WAV2VEC2),
    "wav2vec2_masked": classifier("Wav2Vec2", WAV2VEC2 | MASKED),
    "wav2vec2_layerdrop": classifier("Wav2Vec2", WAV2VEC2 | DROPPED, **BY_VALUE),
    "hubert": classifier("Hubert", WAV2VEC2),
    "data2vec_audio": classifier("Data2VecAudio", WAV2VEC2 | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}),
    "sew": classifier("SEW", WAV2VEC2 | {"squeeze_factor": 2}),
    "ast": Entry(kind="ASTForAudioClassification", config="ASTConfig", given=AST, inputs=spectra, further=FURTHER_SEEN),
    "whisper": Entry(
        kind="WhisperForConditionalGeneration",
        config="WhisperConfig",
        given=WHISPER,
        inputs=transcribed,
        further=FURTHER_SEEN | {"more words": {"batch": 2, "length": 9}},
    ),
}

END = WORDS - 1  # where CLIP takes what it says of a sentence
CLIP = {
    "text_config": TEXT | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": END},
    "vision_config": PATCHES,
    "projection_dim": 16,
}
LLAVA_TEXT = TEXT | {"model_type": "llama", "num_key_value_heads": 2}
LLAVA = {
    "text_config": LLAVA_TEXT,
    "vision_config": PATCHES | {"model_type": "clip_vision_model"},
    "image_token_index": END,
}


def told(batch: int, length: int = 12, pads: int = 3, seed: int = 1, mask: bool = True) -> Call:
    """A batch of images, each with a sentence that says where it ends."""
    ids = torch.cat([words(batch, length - 1, seed), torch.full((batch, 1), END)], dim=1)
    given = {"input_ids": ids, "pixel_values": images(batch, SIDE, seed=seed)}
    return (), given | ({"attention_mask": padding(batch, length, pads)} if mask else {})


def interleaved(batch: int, length: int = 8, seed: int = 1) -> Call:
    """A batch of sentences that begin with an image: sixteen tokens stand for its patches."""
    ids = torch.cat([torch.full((batch, 16), END), words(batch, length, seed)], dim=1)
    pixels = images(batch, SIDE, seed=seed)
    return (), {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids), "use_cache": False}


TOLD = {"batch of 3": {"batch": 3, "seed": 2, "pads": 0}, "longer": {"batch": 2, "length": 17}}

SENSES = {
    "clip": Entry(kind="CLIPModel", config="CLIPConfig", given=CLIP, inputs=told, further=TOLD),
    "siglip": Entry(
        kind="SiglipModel",
        config="SiglipConfig",
        given={"text_config": TEXT, "vision_config": PATCHES},
        inputs=told,
        further={"batch of 3": TOLD["batch of 3"]},
    ),
    "vilt": Entry(
        kind="ViltModel",
        config="ViltConfig",
        given=TEXT | PATCHES,
        inputs=told,
        further=TOLD,
        **BY_VALUE,
    ),
    "blip": Entry(
        kind="BlipModel",
        config="BlipConfig",
        given={"text_config": TEXT, "vision_config": PATCHES, "projection_dim": 16},
        inputs=told,
        further=TOLD,
    ),
    "llava": Entry(
        kind="LlavaForConditionalGeneration",
        config="LlavaConfig",
        given=LLAVA,
        inputs=interleaved,
        further={"batch of 3": {"batch": 3, "seed": 2}, "longer": {"batch": 2, "length": 11}},
    ),
}

SERIES = {"context_length": 32, "patch_length": 8, "patch_stride": 8, "num_input_channels": 3, "d_model": 32}
SERIES |= {"num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "prediction_length": 4}


def past(batch: int, seed: int = 1) -> Call:
    """A batch of series of three values."""
    return (), {"past_values": torch.randn(batch, 32, 3, generator=torch.Generator().manual_seed(seed))}


OTHER = {
    "patchtst": Entry(
        kind="PatchTSTForPrediction", config="PatchTSTConfig", given=SERIES, inputs=past, further=FURTHER_SEEN
    ),
}

MODELS = models("audio", AUDIO) + models("multimodal", SENSES) + models("series", OTHER)
