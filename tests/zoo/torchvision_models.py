"""Models of torchvision: classes, segments, boxes, motion."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.zoo import operators
from tests.zoo.model import MODES, RIGHT, Call, Model, images, shaken

EMPTY = {"weights": None, "weights_backbone": None}
FEW_CLASSES = {"num_classes": 5}
SMALL = {"min_size": 96, "max_size": 96}
FEW_PROPOSALS = {
    "rpn_pre_nms_top_n_train": 40,
    "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_train": 30,
    "rpn_post_nms_top_n_test": 20,
    "box_batch_size_per_image": 16,
}
BY_VALUE = r"the value of a tensor decides what is run at .*; name the function"


def build(group: str, name: str, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    operators.install()
    place = getattr(models, group) if group else models
    return shaken(getattr(place, name)(**options))


def seen(argument: str, size: int, batch: int, seed: int = 1) -> Call:
    return (), {argument: images(batch, size, seed=seed)}


def pairs(batch: int, seed: int = 1) -> Call:
    """Two images each, and what moved between them is to be found in two rounds."""
    first = images(batch, 128, seed=seed)
    return (), {"image1": first, "image2": first.flip(-1), "num_flow_updates": 2}


def found(batch: int, seed: int = 1) -> Call:
    """A list of images, each with the boxes that are to be found in it."""
    pixels = list(images(batch, 96, seed=seed).sigmoid())
    boxes = torch.tensor([[10.0, 10, 60, 60], [30, 40, 90, 80]])
    return (pixels, [{"boxes": boxes.clone(), "labels": torch.tensor([1, 2])} for _ in range(batch)]), {}


def model(
    name: str,
    family: str,
    inputs: Callable[..., Call],
    *,
    group: str = "",
    further: Mapping[str, Callable[[], Call]] | None = None,
    expected: str = RIGHT,
    reason: str = "",
    modes: tuple[str, ...] = MODES,
    **options: Any,
) -> Model:
    """Describe one model; ``options`` are those of its function."""
    return Model(
        name=f"torchvision/{name}",
        family=f"torchvision: {family}",
        build=partial(build, group, name, options),
        inputs=inputs,
        further={"batch of 3": partial(inputs, 3, seed=2)} | dict(further or {}),
        modes=modes,
        expected=expected,
        reason=reason,
    )


def classifier(name: str, size: int = 64, other_size: int = 96, **options: Any) -> Model:
    inputs = partial(seen, "x", size)
    further = {f"{other_size} pixels": partial(seen, "x", other_size, 2, 3)} if other_size else {}
    return model(name, "classification", inputs, further=further, **options)


def segmenter(name: str, argument: str = "x", **options: Any) -> Model:
    further = {"96 pixels": partial(seen, argument, 96, 2, 3)}
    options = EMPTY | {"num_classes": 5} | options
    return model(name, "segmentation", partial(seen, argument, 64), group="segmentation", further=further, **options)


def detector(name: str, **options: Any) -> Model:
    options = EMPTY | FEW_CLASSES | {"expected": "refused", "reason": BY_VALUE} | options
    return model(name, "detection", found, group="detection", **options)


VIT = {"image_size": 64, "patch_size": 16, "num_layers": 3, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}

MODELS = [
    classifier("resnet18"),
    classifier("mobilenet_v3_large"),
    classifier("efficientnet_b0"),
    classifier("shufflenet_v2_x0_5"),
    classifier("convnext_tiny"),
    classifier("VisionTransformer", other_size=0, num_classes=10, **VIT),
    classifier("swin_v2_t", num_classes=10),
    classifier("googlenet", init_weights=False, num_classes=10),
    segmenter("deeplabv3_resnet50"),
    segmenter("lraspp_mobilenet_v3_large", "input"),
    segmenter("fcn_resnet50", aux_loss=True),
    model("raft_small", "optical flow", pairs, group="optical_flow"),
    detector("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL, **FEW_PROPOSALS),
    detector("retinanet_resnet50_fpn", **SMALL),
    detector("ssdlite320_mobilenet_v3_large"),
    detector("fcos_resnet50_fpn", **SMALL),
]
