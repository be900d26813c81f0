"""What libraries draw or look up in numpy and scipy, delivered: DETR's matcher, timm's mixup, wav2vec2's mask."""

import copy
from typing import Any

import pytest
import timm.data
import torch
import transformers.loss.loss_for_object_detection as detection
import transformers.models.wav2vec2.modeling_wav2vec2 as speech
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from tests.opaque.steps import Spy, assert_trains_alike

WAYS: dict[str, dict[str, Any]] = {
    "graph": {"backend": "graph"},
    "eager": {"backend": "eager"},
    "compiled": {"wrap": lambda distiller: torch.compile(distiller, fullgraph=True, backend="aot_eager")},
}

pytestmark = pytest.mark.usefixtures("fresh_dynamo")
WIDTH = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def divergence(one: Tensor, other: Tensor) -> Tensor:
    return functional.kl_div(one.log_softmax(1), other.softmax(1), reduction="batchmean")


# The matcher of DETR


def detr(seed: int) -> DetrForObjectDetection:
    torch.manual_seed(seed)
    backbone = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], out_features=["stage2"])
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        num_queries=6,
        num_labels=4,
        dropout=0.0,
        **WIDTH,
        **HEADS,
    )
    return DetrForObjectDetection(config).train()


def images_with_boxes(seed: int) -> dict[str, Any]:
    draw = generator(seed)
    labels = [
        {
            "class_labels": torch.randint(0, 4, (n,), generator=draw),
            "boxes": 0.2 + 0.3 * torch.rand(n, 4, generator=draw),
        }
        for n in (2, 3)
    ]
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=draw), "labels": labels}


MATCHER = {
    "m": {"type": "MethodOutputs", "method_path": f"{detection.__name__}.HungarianMatcher.forward", "max_keep_data": 1}
}
ASSIGNMENT = {
    "m": {"type": "FunctionOutputs", "func_path": f"{detection.__name__}.linear_sum_assignment", "max_keep_data": 2}
}
BOXES = {"boxes": {"type": "MethodOutputs", "source": f"{detection.__name__}.ImageLoss.loss_boxes"}}
OVERLAP = {"overlap": {"type": "FunctionOutputs", "source": f"{detection.__name__}.generalized_box_iou"}}


def both(recorders: dict[str, Any], deliveries: dict[str, Any]) -> dict[str, Any]:
    return {"student_recorders": recorders, "teacher_recorders": recorders, "distill_deliveries": deliveries}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "way"),
    [
        ("matcher", "graph"),
        ("matcher", "eager"),
        pytest.param("matcher", "compiled", marks=SLOW),
        pytest.param("assignment", "graph", marks=SLOW),
        pytest.param("assignment", "eager", marks=SLOW),
        pytest.param("assignment", "compiled", marks=SLOW),
    ],
)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_the_student_of_a_detr_is_matched_as_the_teacher(what: str, way: str) -> None:
    if what == "matcher":
        spy, spec, calls = Spy(detection.HungarianMatcher, "forward"), both(BOXES, MATCHER), 1
    else:
        spy, spec, calls = Spy(detection, "linear_sum_assignment"), both(OVERLAP, ASSIGNMENT), 2

    def by_hand(student: nn.Module, teacher: nn.Module, batch: dict[str, Any]) -> Tensor:
        loss: Tensor = spy.replaying(lambda: teacher.eval()(**batch), lambda: student(**batch)).loss
        return loss

    is_training = way != "compiled"  # in train mode the encoder decides by values, which torch.compile does not take
    models = lambda: (detr(0).train(is_training), detr(1))  # noqa: E731
    assert_trains_alike(models, spec, images_with_boxes, by_hand, spy, calls=calls, verify=False, **WAYS[way])


# Mixup of timm


class Mixed(nn.Module):
    """A classifier that mixes its images and labels first."""

    def __init__(self, seed: int, width: int, mode: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mixup = timm.data.Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode, num_classes=5)
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(1))
        self.head = nn.Linear(4 * width, 5)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        images, shares = self.mixup(images, labels)
        logits = self.head(self.body(images))
        return {"logits": logits, "loss": -(shares * logits.log_softmax(1)).sum(1).mean()}


def labelled_images(seed: int) -> dict[str, Any]:
    draw = generator(seed)
    images = torch.randn(4, 3, 8, 8, generator=draw)
    return {"images": images, "labels": torch.randint(0, 5, (4,), generator=draw)}


MIXUP: dict[str, Any] = {
    "distill_deliveries": {
        "m": {"type": "MethodOutputs", "method_path": "timm.data.Mixup.__call__", "max_keep_data": 1}
    },
    "pairs": [{"student": "head", "teacher": "head", "loss": {"type": "KLDivergence"}}],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["batch", *(pytest.param(mode, marks=SLOW) for mode in ("elem", "pair"))])
def test_both_models_see_the_same_mix(mode: str, way: str) -> None:
    spy = Spy(timm.data.Mixup, "__call__")

    def by_hand(student: nn.Module, teacher: nn.Module, batch: dict[str, Any]) -> Tensor:
        logits: list[Tensor] = []
        watching = teacher.head.register_forward_hook(lambda module, args, output: logits.append(output))  # type: ignore[union-attr]
        out = spy.replaying(lambda: teacher(**copy.deepcopy(batch)), lambda: student(**batch))
        watching.remove()
        return divergence(out["logits"], logits[0]) + out["loss"]

    assert_trains_alike(
        lambda: (Mixed(0, 4, mode), Mixed(1, 8, mode)), MIXUP, labelled_images, by_hand, spy, **WAYS[way]
    )


# The mask of wav2vec2


def wav2vec2(seed: int) -> Wav2Vec2ForSequenceClassification:
    torch.manual_seed(seed)
    quiet = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        mask_time_prob=0.3,
        mask_time_length=2,
        mask_feature_prob=0.2,
        mask_feature_length=2,
        layerdrop=0.0,
        **dict.fromkeys(quiet, 0.0),
    )
    model = Wav2Vec2ForSequenceClassification(config).train()
    model.freeze_feature_encoder()  # the encoder sets requires_grad in its forward, which torch.compile does not take
    return model


def sounds(seed: int) -> dict[str, Any]:
    return {"input_values": torch.randn(2, 600, generator=generator(seed)), "labels": torch.tensor([0, 1])}


MASK = f"{speech.__name__}._compute_mask_indices"
MASKED: dict[str, Any] = {
    "distill_deliveries": {"m": {"type": "FunctionOutputs", "func_path": MASK, "max_keep_data": 2}},
    "pairs": [{"student": "classifier", "teacher": "classifier", "loss": {"type": "KLDivergence"}}],
}


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor", "ignore:Dynamo detected a call")
@pytest.mark.parametrize("way", ["graph", "eager", pytest.param("compiled", marks=SLOW)])
def test_one_mask_for_both_models(way: str) -> None:
    spy = Spy(speech, "_compute_mask_indices")

    def by_hand(student: nn.Module, teacher: nn.Module, batch: dict[str, Any]) -> Tensor:
        theirs: list[Tensor] = []
        out = spy.replaying(lambda: theirs.append(teacher(**batch).logits), lambda: student(**batch))
        return divergence(out.logits, theirs[0]) + out.loss

    models = (lambda: (wav2vec2(0), wav2vec2(1)), MASKED, sounds, by_hand, spy)
    assert_trains_alike(*models, calls=2, teacher_mode="train", verify=False, **WAYS[way])
