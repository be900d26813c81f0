"""Which models of timm, how small they are made, and the sides of the images that they are given."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Options:
    """How one model is built and called.

    Args:
        given: Options of ``timm.create_model``.
        size: Side of the images.
        other_size: Side of other images that it takes too, or None.
        refused: Why it is refused, if it is: a regular expression.
        is_warm: Whether it is called once before: in eval mode it keeps what it makes at its first call.
    """

    given: dict[str, Any]
    size: int = 64
    other_size: int | None = None
    refused: str = ""
    is_warm: bool = False


REPLACES = "the forward of GPSA replaces the buffer"  # rel_indices, whenever the size of the images is another


def small(size: int = 64, **given: Any) -> Options:
    """A model that takes images of one size alone."""
    return Options(given, size)


def free(size: int = 64, other_size: int = 96, **given: Any) -> Options:
    """A model that takes images of any size."""
    return Options(given, size, other_size)


CONVOLUTIONAL = {
    "resnet18": free(),
    "resnet50": free(layers=(1, 2, 1, 1)),
    "seresnet18": free(drop_block_rate=0.1),
    "resnetv2_50": free(layers=(1, 2, 1, 1)),
    "efficientnet_b0": free(drop_path_rate=0.1, drop_rate=0.1),
    "mobilenetv3_small_050": free(),
    "mobilenetv4_conv_small_035": free(),
    "convnext_atto": free(drop_path_rate=0.1, depths=(1, 1, 2, 1)),
    "convnextv2_atto": free(depths=(1, 1, 2, 1)),
    "regnety_002": free(),
    "densenet121": free(block_config=(2, 2, 2, 2), drop_rate=0.1),
    "hrnet_w18_small": free(),
    "dla34": free(),
    "res2net50_14w_8s": free(layers=(1, 1, 1, 1)),
    "resnest14d": free(),
    "skresnet18": free(),
    "dm_nfnet_f0": free(drop_path_rate=0.1),
    "nf_regnet_b0": free(),
    "ghostnetv2_100": free(),
    "repvgg_a0": free(),
    "repvit_m0_9": free(),
    "ese_vovnet19b_dw": free(),
    "inception_v3": free(128, 160),
    "inception_next_atto": free(depths=(1, 1, 2, 1)),
    "xception41": free(),
    "vgg11_bn": free(),
    "rdnet_tiny": free(),
    "starnet_s1": free(),
    "lcnet_035": free(),
    "tf_efficientnetv2_b0": free(drop_path_rate=0.1),
    "cs3darknet_s": free(),
    "mobileone_s0": free(),
}

NARROW: dict[str, Any] = {"embed_dim": 48, "depth": 3, "num_heads": 4}

TRANSFORMERS = {
    "vit_tiny_patch16_224": small(img_size=64, drop_path_rate=0.1, drop_rate=0.1, **NARROW),
    "vit_small_patch14_reg4_dinov2": free(56, 84, img_size=56, dynamic_img_size=True, **NARROW),
    "vit_base_patch32_clip_224": small(img_size=64, pos_drop_rate=0.1, patch_drop_rate=0.25, **NARROW),
    "deit_tiny_distilled_patch16_224": small(img_size=64, **NARROW),
    "swin_tiny_patch4_window7_224": small(
        img_size=64, window_size=4, embed_dim=24, depths=(1, 1, 2, 2), drop_path_rate=0.1
    ),
    "swinv2_tiny_window8_256": small(img_size=64, window_size=4, embed_dim=24, depths=(1, 1, 2, 2)),
    "cait_xxs24_224": small(img_size=64, **NARROW),
    "beit_base_patch16_224": small(img_size=64, init_values=0.1, **NARROW),
    "eva02_tiny_patch14_224": small(56, img_size=56, depth=3),
    "coat_tiny": small(img_size=64, serial_depths=(1, 1, 1, 1), parallel_depth=1),
    "coat_lite_tiny": small(img_size=64),
    "xcit_nano_12_p16_224": free(img_size=64, depth=3),
    "crossvit_9_240": small(240, depth=((1, 1, 0), (1, 1, 0), (1, 1, 0))),
    "pit_ti_224": small(224, depth=(1, 1, 1)),
    "volo_d1_224": small(img_size=64),
    "twins_pcpvt_small": small(img_size=64, depths=(1, 1, 2, 1)),
    "twins_svt_small": small(img_size=64, depths=(1, 1, 2, 1)),
    "gcvit_xxtiny": small(128, img_size=128),
    "davit_tiny": free(depths=(1, 1, 2, 1)),
    "tnt_s_patch16_224": small(img_size=64, depth=3),
    "nest_tiny": small(224),
    "mvitv2_tiny": small(img_size=64),
    "pvt_v2_b0": free(depths=(1, 1, 2, 1)),
    "hiera_tiny_224": small(224, stages=(1, 1, 2, 1)),
    "convit_tiny": replace(small(img_size=64, depth=4, local_up_to_layer=2), refused=REPLACES),
    "naflexvit_base_patch16_gap": free(depth=3, embed_dim=96, num_heads=4),
    "vit_relpos_small_patch16_224": small(img_size=64, **NARROW),
    "samvit_base_patch16_224": small(img_size=64, global_attn_indexes=(1,), window_size=2, **NARROW),
}

BETWEEN = {
    "mixer_s32_224": small(img_size=64),
    "gmlp_ti16_224": small(img_size=64),
    "resmlp_12_224": small(img_size=64),
    "maxvit_pico_rw_256": small(img_size=64),
    "levit_128s": replace(small(112, img_size=112), is_warm=True),
    "poolformer_s12": free(),
    "caformer_s18": free(),
    "fastvit_t8": free(),
    "edgenext_xx_small": free(),
    "focalnet_tiny_srf": free(),
    "mobilevit_xxs": free(),
    "mobilevitv2_050": free(),
    "efficientformer_l1": replace(small(224), is_warm=True),
    "efficientvit_m0": replace(small(224), is_warm=True),
    "tiny_vit_5m_224": replace(small(224), is_warm=True),
    "sequencer2d_s": free(),
    "mambaout_femto": free(depths=(1, 1, 2, 1)),
    "halonet26t": small(256),
    "lambda_resnet26t": small(128),
    "swiftformer_xs": free(),
}
