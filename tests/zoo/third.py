"""The third of each family that every run of the tests compares, each model in a reduced form.

They are those whose comparison in this form takes the fewest CPU seconds, among them at most one that is refused as
long as there are others. All models in full are compared with ``FXKD_SLOW=1``, and by ``python -m tests.zoo``.
"""

from dataclasses import replace

from tests.zoo.model import MODES, RIGHT, Model
from tests.zoo.zoo import MODELS

THIRD: dict[str, tuple[str, ...]] = {
    "timm: convolutional": (
        "resnet18",
        "resnet50",
        "seresnet18",
        "resnetv2_50",
        "convnext_atto",
        "convnextv2_atto",
        "densenet121",
        "ese_vovnet19b_dw",
        "inception_next_atto",
        "lcnet_035",
        "cs3darknet_s",
    ),
    "timm: transformers": (
        "vit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch32_clip_224",
        "deit_tiny_distilled_patch16_224",
        "cait_xxs24_224",
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
        "convit_tiny",
        "naflexvit_base_patch16_gap",
        "vit_relpos_small_patch16_224",
    ),
    "timm: between and beyond": (
        "mixer_s32_224",
        "gmlp_ti16_224",
        "resmlp_12_224",
        "poolformer_s12",
        "edgenext_xx_small",
        "mambaout_femto",
        "swiftformer_xs",
    ),
    "transformers: encoders": ("roberta", "albert", "electra", "longformer", "big_bird", "fnet"),
    "transformers: encoder-decoders": ("switch_transformers", "bart", "mbart"),
    "transformers: decoders": ("gpt_neo", "bloom", "opt", "llama_cache", "mistral", "cohere"),
    "transformers: mixtures of experts": ("mixtral", "qwen3_moe"),
    "transformers: state spaces": ("recurrent_gemma", "rwkv"),
    "transformers: vision": ("vit", "deit", "dinov2", "poolformer"),
    "transformers: detection": ("detr_labels", "yolos"),
    "transformers: segmentation and depth": ("segformer", "depth_anything"),
    "transformers: audio": ("wav2vec2_layerdrop", "hubert", "ast"),
    "transformers: multimodal": ("clip", "vilt"),
    "transformers: series": ("patchtst",),
    "torchvision: classification": ("resnet18", "shufflenet_v2_x0_5", "VisionTransformer"),
    "torchvision: segmentation": ("lraspp_mobilenet_v3_large",),
    "torchvision: optical flow": ("raft_small",),
    "torchvision: detection": ("fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"),
}


def third() -> list[Model]:
    """Give the models of the third, reduced."""
    return [
        reduced(MODELS[f"{family.partition(':')[0]}/{name}"], place)
        for family, names in THIRD.items()
        for place, name in enumerate(names)
    ]


def reduced(model: Model, place: int) -> Model:
    """Leave one mode and one further call, by turns, so that each call meets each mode.

    A model that is refused keeps no further call: it is refused on the example.
    """
    further = list(model.further.items()) if model.expected == RIGHT else []
    chosen = (place + place // len(MODES)) % max(1, len(further))
    mode = model.modes[place % len(model.modes)]
    return replace(model, modes=(mode,), further=dict(further[chosen : chosen + 1]))
