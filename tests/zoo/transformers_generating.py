"""Decoders of transformers: attention, mixtures of experts and state spaces."""

from typing import Any

from tests.zoo.model import REFUSED
from tests.zoo.transformers_family import (
    FURTHER_CONTINUED,
    GROUPED,
    TEXT,
    WORDS,
    Entry,
    continued,
    labelled,
    models,
    text,
)


def decoder(name: str, given: dict[str, Any], kind: str = "ForCausalLM", **options: Any) -> Entry:
    """A model that goes on with a sentence."""
    options = {"inputs": continued, "further": FURTHER_CONTINUED} | options
    return Entry(kind=f"{name}{kind}", config=f"{name}Config", given=given, **options)


GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": WORDS, "n_positions": 64}
GPT_NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": WORDS, "max_position_embeddings": 64}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]], "window_size": 4}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": WORDS}
OPT |= {"max_position_embeddings": 64, "word_embed_proj_dim": 32}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": WORDS}
GEMMA3 = GROUPED | {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}

DECODERS = {
    "gpt2": decoder("GPT2", GPT2, "LMHeadModel"),
    "gpt_neo": decoder("GPTNeo", GPT_NEO),
    "gpt_neox": decoder("GPTNeoX", TEXT),
    "bloom": decoder("Bloom", BLOOM),
    "opt": decoder("OPT", OPT),
    "llama": decoder("Llama", GROUPED),
    "llama_cache": decoder("Llama", GROUPED, inputs=text),
    "llama_labels": decoder("Llama", GROUPED, inputs=labelled),
    "mistral": decoder("Mistral", GROUPED | {"sliding_window": 8}),
    "qwen2": decoder("Qwen2", GROUPED),
    "qwen3": decoder("Qwen3", GROUPED | {"head_dim": 8}),
    "gemma2": decoder("Gemma2", GROUPED | {"head_dim": 8}),
    "gemma3": decoder("Gemma3", GEMMA3).renamed("Gemma3TextConfig"),
    "phi3": decoder("Phi3", GROUPED),
    "falcon": decoder("Falcon", TEXT | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "stablelm": decoder("StableLm", GROUPED),
    "olmo2": decoder("Olmo2", GROUPED),
    "cohere": decoder("Cohere", GROUPED),
}

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1}
DEEPSEEK |= {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
DEEPSEEK |= {"first_k_dense_replace": 1, "num_key_value_heads": 4}

MIXTURES = {
    "mixtral": decoder("Mixtral", GROUPED | EXPERTS),
    "qwen3_moe": decoder("Qwen3Moe", GROUPED | QWEN_EXPERTS),
    "granitemoe": decoder("GraniteMoe", GROUPED | EXPERTS),
    "deepseek_v3": decoder("DeepseekV3", GROUPED | DEEPSEEK),
}

MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": WORDS, "state_size": 4}
MAMBA2 = MAMBA | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
RWKV = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": WORDS, "attention_hidden_size": 32}
JAMBA = GROUPED | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
JAMBA |= {"num_experts": 4, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False}
RECURRENT = GROUPED | {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]}

STATE_SPACES = {
    "mamba": decoder("Mamba", MAMBA),
    "mamba2": decoder("Mamba2", MAMBA2),
    "falcon_mamba": decoder("FalconMamba", MAMBA),
    "rwkv": decoder("Rwkv", RWKV, expected=REFUSED, reason="reads and changes .*layers_are_rescaled"),
    "jamba": decoder("Jamba", JAMBA),
    "recurrent_gemma": decoder("RecurrentGemma", RECURRENT),
}

MODELS = models("decoders", DECODERS) + models("mixtures of experts", MIXTURES) + models("state spaces", STATE_SPACES)
