"""Models of transformers for images: classes, segments, boxes, depths."""

from typing import Any

import torch

from tests.zoo.model import Call, images
from tests.zoo.transformers_family import (
    BY_VALUE,
    FURTHER_SEEN,
    FURTHER_SIDES,
    PATCHES,
    SIDE,
    SMALL,
    Entry,
    config,
    models,
    seen,
)


def classifier(name: str, given: dict[str, Any], **options: Any) -> Entry:
    """A model that names the class of an image."""
    options = {"inputs": seen, "further": FURTHER_SEEN} | options
    return Entry(kind=f"{name}ForImageClassification", config=f"{name}Config", given=given, **options)


SWIN = {"embed_dim": 16, "window_size": 4, "image_size": SIDE, "patch_size": 4}
WIDTHS = {"hidden_sizes": [8, 16, 24, 32]}
RESNET = {"embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 2, 1]}
LEVIT = {"hidden_sizes": [16, 32, 48], "depths": [1, 1, 1], "num_attention_heads": [1, 2, 2], "key_dim": [8, 8, 8]}
MOBILE = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 40], "image_size": SIDE}
MAE = PATCHES | {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
}

VISION = {
    "vit": classifier("ViT", PATCHES),
    "deit": classifier("DeiT", PATCHES),
    "beit": classifier("Beit", PATCHES | {"use_relative_position_bias": True}),
    "dinov2": classifier("Dinov2", PATCHES, further=FURTHER_SIDES),
    "swin": classifier("Swin", SWIN | {"depths": [1, 2], "num_heads": [2, 4]}, further=FURTHER_SIDES),
    "convnext": classifier("ConvNext", WIDTHS | {"depths": [1, 1, 2, 1], "drop_path_rate": 0.1}, further=FURTHER_SIDES),
    "resnet": classifier("ResNet", RESNET, further=FURTHER_SIDES),
    "regnet": classifier("RegNet", RESNET | {"groups_width": 8}, further=FURTHER_SIDES),
    "levit": classifier("Levit", LEVIT | {"image_size": SIDE}, modes=("train",)),  # in eval mode it trains once
    "mobilevit": classifier("MobileViT", MOBILE, further=FURTHER_SIDES),
    "poolformer": classifier("PoolFormer", WIDTHS | {"depths": [1, 1, 1, 1]}, further=FURTHER_SIDES),
    "vit_mae": Entry(kind="ViTMAEForPreTraining", config="ViTMAEConfig", given=MAE, inputs=seen, further=FURTHER_SEEN),
}

DETR = {
    **{f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("attention_heads", 4))},
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "d_model": 32,
    "num_queries": 7,
}
BACKBONE = config("ResNetConfig", **RESNET, out_features=["stage4"])
BACKBONES = config("ResNetConfig", **RESNET, out_features=["stage2", "stage3", "stage4"])
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN_BACKBONE = config("SwinConfig", **SWIN, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], out_features=STAGES)
OWN_BACKBONE = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
RT_BACKBONE = config("RTDetrResNetConfig", **RESNET, out_features=STAGES[1:])
RT_DETR = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 7,
    "num_denoising": 0,
    "eval_size": None,
}


def boxes(batch: int, side: int = SIDE, seed: int = 1) -> Call:
    """A batch of images with the objects that are to be found."""
    args, given = seen(batch, side, seed)
    labels = [
        {"class_labels": torch.tensor([1, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.4, 0.3, 0.1]])}
        for _ in range(batch)
    ]
    return args, given | {"labels": labels}


def detector(name: str, given: dict[str, Any], **options: Any) -> Entry:
    """A model that finds objects."""
    options = {"inputs": seen, "further": FURTHER_SIDES} | options
    return Entry(kind=f"{name}ForObjectDetection", config=f"{name}Config", given=given, **options)


DETECTION = {
    "detr": detector("Detr", DETR | OWN_BACKBONE | {"backbone_config": BACKBONE}),
    "detr_labels": detector("Detr", DETR | OWN_BACKBONE | {"backbone_config": BACKBONE}, inputs=boxes, **BY_VALUE),
    "conditional_detr": detector("ConditionalDetr", DETR | OWN_BACKBONE | {"backbone_config": BACKBONE}),
    "deformable_detr": detector("DeformableDetr", DETR | OWN_BACKBONE | {"backbone_config": BACKBONES}),
    "rt_detr": detector("RTDetr", RT_DETR | {"backbone_config": RT_BACKBONE}),
    "yolos": detector("Yolos", PATCHES | {"image_size": [SIDE, SIDE], "num_detection_tokens": 7}, further=FURTHER_SEEN),
}

SEGFORMER = WIDTHS | {"depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "num_attention_heads": [1, 2, 4, 4]}
MASK2FORMER = {
    "backbone_config": SWIN_BACKBONE,
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "num_attention_heads": 4,
    "dim_feedforward": 32,
    "num_queries": 7,
    "num_labels": 5,
}
MASKFORMER_DECODER = config("DetrConfig", **DETR, **OWN_BACKBONE, backbone_config=BACKBONE)
MASKFORMER = {
    "backbone_config": SWIN_BACKBONE,
    "decoder_config": MASKFORMER_DECODER,
    "fpn_feature_size": 32,
    "mask_feature_size": 32,
    "num_labels": 5,
}
SAM_VISION = SMALL | {"output_channels": 16, "num_pos_feats": 8, "image_size": SIDE, "patch_size": 16, "mlp_dim": 64}
SAM = {
    "vision_config": SAM_VISION | {"window_size": 2, "global_attn_indexes": [1]},
    "prompt_encoder_config": {"hidden_size": 16, "image_size": SIDE, "patch_size": 16},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
}


def pointed_at(batch: int, seed: int = 1, points: int = 1) -> Call:
    """A batch of images, with places on them."""
    generator = torch.Generator().manual_seed(seed)
    where = torch.rand(batch, 1, points, 2, generator=generator) * SIDE
    return (), {"pixel_values": images(batch, SIDE, seed=seed), "input_points": where}


DEPTH = {
    "backbone_config": config(
        "Dinov2Config",
        **PATCHES | {"num_hidden_layers": 4, "image_size": 56, "patch_size": 14},
        out_features=STAGES,
        reshape_hidden_states=False,
    ),
    "reassemble_hidden_size": 32,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "head_hidden_size": 8,
}

SEGMENTATION = {
    "segformer": Entry(
        kind="SegformerForSemanticSegmentation",
        config="SegformerConfig",
        given=SEGFORMER,
        inputs=seen,
        further=FURTHER_SIDES,
    ),
    "upernet": Entry(
        kind="UperNetForSemanticSegmentation",
        config="UperNetConfig",
        given={
            "backbone_config": SWIN_BACKBONE,
            "hidden_size": 16,
            "auxiliary_channels": 16,
            "auxiliary_in_channels": 64,
        },
        inputs=seen,
        further=FURTHER_SIDES,
    ),
    "mask2former": Entry(
        kind="Mask2FormerForUniversalSegmentation",
        config="Mask2FormerConfig",
        given=MASK2FORMER,
        inputs=seen,
        further=FURTHER_SIDES,
    ),
    "maskformer": Entry(
        kind="MaskFormerForInstanceSegmentation",
        config="MaskFormerConfig",
        given=MASKFORMER,
        inputs=seen,
        further=FURTHER_SIDES,
    ),
    "sam": Entry(
        kind="SamModel",
        config="SamConfig",
        given=SAM,
        inputs=pointed_at,
        further=FURTHER_SEEN | {"two points": {"batch": 2, "points": 2}},
    ),
    "depth_anything": Entry(
        kind="DepthAnythingForDepthEstimation",
        config="DepthAnythingConfig",
        given=DEPTH,
        inputs=lambda batch, side=56, seed=1: seen(batch, side, seed),
        further=FURTHER_SEEN | {"84 pixels": {"batch": 2, "side": 84}},
    ),
}

MODELS = models("vision", VISION) + models("detection", DETECTION) + models("segmentation and depth", SEGMENTATION)
