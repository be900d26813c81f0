"""The third of each family that every run of the tests compares, in a reduced form: ``python -m tests.zoo.third``.

They are those whose comparison in this form takes the fewest CPU seconds, among them at most one that is refused as
long as there are others. All models in full are compared with ``FXKD_SLOW=1``, and by ``python -m tests.zoo``.

To choose points by the rule takes a capture and several runs of each model, so what it chose is kept in ``third.json``,
which the command writes anew.
"""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

from tests.support import torchvision_shim

torchvision_shim.install()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.zoo.compare import BATCH  # noqa: E402 (after the shim)
from tests.zoo.model import MODES, RIGHT, Model  # noqa: E402
from tests.zoo.points import Recorders, chosen  # noqa: E402
from tests.zoo.zoo import MODELS  # noqa: E402

POINTS = Path(__file__).with_name("third.json")
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
    """Give the models of the third, reduced, with the points that are kept for them."""
    points = json.loads(POINTS.read_text(encoding="utf-8"))
    return [replace(model, recorders=points.get(model.name)) for model in without_points()]


def without_points() -> list[Model]:
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
    at = (place + place // len(MODES)) % max(1, len(further))
    return replace(model, modes=(model.modes[place % len(model.modes)],), further=dict(further[at : at + 1]))


def by_rule(model: Model) -> Recorders:
    """Choose the points of a reduced model by the rule, on all calls of the whole one."""
    further = MODELS[model.name].further.values()
    with warnings.catch_warnings(action="ignore"):
        return chosen(model.built(model.modes[0]), [model.inputs(BATCH), *(make() for make in further)])


def main() -> None:
    """Write the points of the third anew."""
    lines = [f"{json.dumps(model.name)}: {json.dumps(by_rule(model))}" for model in without_points()]
    POINTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
