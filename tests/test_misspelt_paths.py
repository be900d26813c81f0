"""Paths as people write them from memory, from other libraries or out of a wrapped model: the right one is offered."""

import functools
import re

import pytest
from torch import nn

from fxkd.errors import PointError
from fxkd.nearest import as_ranges, nearest_paths
from fxkd.points import find_module, find_parameter

# What is asked -> what is meant, in timm's resnet18 and vit_tiny_patch16_224
MISSPELT = {
    ("resnet18", "module.layer4"): "layer4",  # DistributedDataParallel
    ("resnet18", "backbone.layer3.1.bn2"): "layer3.1.bn2",  # OpenMMLab
    ("resnet18", "layer1[1].bn1"): "layer1.1.bn1",  # print(model.layer1[1].bn1)
    ("resnet18", "stage3.0"): "layer3.0",  # the paper
    ("resnet18", "layer3.2"): "layer3.1",  # the second, counted from 1
    ("resnet18", "Layer2.0.conv_1"): "layer2.0.conv1",  # from memory
    ("resnet18", "head.fc"): "fc",  # OpenMMLab
    ("resnet18", "resnet.encoder.stages.3"): "layer4",  # transformers
    ("resnet18", "layer2.0.shortcut"): "layer2.0.downsample",  # transformers
    ("resnet18", "avgpool"): "global_pool",  # torchvision
    ("vit_tiny_patch16_224", "_orig_mod.module.blocks.11"): "blocks.11",  # compiled and wrapped
    ("vit_tiny_patch16_224", "encoder.layers.encoder_layer_5"): "blocks.5",  # torchvision
    ("vit_tiny_patch16_224", "vit.encoder.layer.3.attention"): "blocks.3.attn",  # transformers
    ("vit_tiny_patch16_224", "layers.7.ffn"): "blocks.7.mlp",  # OpenMMLab
    ("vit_tiny_patch16_224", "blocks.12"): "blocks.11",  # the twelfth, counted from 1
    ("vit_tiny_patch16_224", "block[5].mlp.fc_2"): "blocks.5.mlp.fc2",  # from memory
}

# Further ones, of the same sources
RESNET, VIT = "resnet18", "vit_tiny_patch16_224"
FURTHER = {
    (RESNET, "layers.2.0.conv2"): "layer3.0.conv2",
    (RESNET, "res4"): "layer3",  # detectron counts from the stem on: not known to the rules
    (RESNET, "layer4.1.relu"): "layer4.1.act2",
    (RESNET, "classifier"): "fc",
    (RESNET, "conv_1"): "conv1",
    (RESNET, "model.layer4.1"): "layer4.1",
    (RESNET, "resnet.encoder.stages.0.layers.1"): "layer1.1",
    (RESNET, "layer2.0.downsample[0]"): "layer2.0.downsample.0",
    (RESNET, "bn"): "bn1",
    (RESNET, "layer4.bn2"): "layer4.1.bn2",
    (RESNET, "layr2"): "layer2",
    (RESNET, "stages.1"): "layer2",
    (RESNET, "layer5"): "layer4",
    (RESNET, "maxpol"): "maxpool",
    (VIT, "encoder.ln"): "norm",
    (VIT, "heads.head"): "head",
    (VIT, "vit.embeddings.patch_embeddings.projection"): "patch_embed.proj",
    (VIT, "vit.encoder.layer.0.attention.output.dense"): "blocks.0.attn.proj",
    (VIT, "encoder.layers.encoder_layer_5.mlp"): "blocks.5.mlp",
    (VIT, "layers.3.ln1"): "blocks.3.norm1",
    (VIT, "blocks.3.ln_1"): "blocks.3.norm1",
    (VIT, "transformer.h.4"): "blocks.4",
    (VIT, "blocks.-1"): "blocks.11",
    (VIT, "vit.layernorm"): "norm",
    (VIT, "blocks3"): "blocks.3",
    (VIT, "blocks.3.attention"): "blocks.3.attn",
    (VIT, "vit.encoder.layer.11"): "blocks.11",
    (VIT, "model.blocks.11.attn.qvk"): "blocks.11.attn.qkv",
    (VIT, "cls_head"): "head",
    (VIT, "vit.encoder.layer.2.intermediate.dense"): "blocks.2.mlp.fc1",
}


@functools.cache
def model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def offered(message: str) -> list[str]:
    """Read the paths after "Did you mean" out of a message."""
    return re.findall(r"'([^']*)'", message.partition("Did you mean")[2])


@pytest.mark.parametrize(("paths", "count"), [(MISSPELT, 16), (FURTHER, 30)])
def test_the_right_path_is_offered(paths: dict[tuple[str, str], str], count: int) -> None:
    missed = {}
    for (name, asked), right in paths.items():
        with pytest.raises(PointError) as caught:
            find_module(model(name), asked)
        if right not in offered(str(caught.value)):
            missed[name, asked] = str(caught.value)
    assert len(paths) == count
    assert len(missed) <= 1, "\n".join(f"{asked}: {message}" for (_, asked), message in missed.items())


@pytest.mark.parametrize(
    ("asked", "known", "found"),
    [
        ("module._orig_mod.fc", ["fc", "fc.weight"], ["fc"]),
        ("layer1.0", ["_orig_mod.module.layer1.0", "_orig_mod.module.layer1.1"], ["_orig_mod.module.layer1.0"]),
        ("encoder.0.fc", ["encoder._orig_mod.0.fc", "encoder._orig_mod.1.fc"], ["encoder._orig_mod.0.fc"]),
        ("proj", ["patch_embed", "patch_embed.proj"], ["patch_embed.proj"]),  # the only one that ends so
        ("net.fc", ["fc", "head"], ["fc"]),
        ("layer.3.norm", ["norm", "blocks.3.norm1"], ["blocks.3.norm1"]),  # an index is not left out
        ("a.9.b", ["a", "a.0", "a.0.b", "a.1", "a.1.b"], ["a.1.b"]),
        ("a.9.c", ["a", "a.0", "a.0.b", "a.1", "a.1.b"], ["a.1"]),
        ("blocks.-1", ["blocks", "blocks.0", "blocks.1", "blocks.2"], ["blocks.2"]),
        ("blocks.-9", ["blocks", "blocks.0", "blocks.1", "blocks.2"], ["blocks.0"]),
        ("stages.0", ["layer1", "layer2"], ["layer1"]),  # lists count from 0, names from 1
        ("layers/0", ["layers.0", "layers.1"], ["layers.0"]),
        ("params['fc']", ["params.fc"], ["params.fc"]),
        ("zebra", ["fc", "conv1"], []),
        ("", ["fc"], []),
        ("model", ["fc"], []),
    ],
)
def test_the_tries(asked: str, known: list[str], found: list[str]) -> None:
    assert nearest_paths(asked, known) == found


def test_no_more_than_asked_for_and_the_best_first() -> None:
    known = [f"layer{index}.conv" for index in range(1, 9)]
    assert nearest_paths("stage.4.conv", known, most=1) == ["layer5.conv"]
    assert nearest_paths("stage.4.conv", known)[:2] == ["layer5.conv", "layer4.conv"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], []),
        (["0", "1"], ["'0'", "'1'"]),
        (["0", "1", "2"], ["'0'..'2'"]),
        (["4", "5", "6", "fc"], ["'4'..'6'", "'fc'"]),
        (["0", "2", "4"], ["'0'", "'2'", "'4'"]),
        (["a", "0", "1", "2"], ["'a'", "'0'", "'1'", "'2'"]),
    ],
)
def test_indices_are_a_range(names: list[str], shown: list[str]) -> None:
    assert as_ranges(names) == shown


def test_the_message_says_how_far_the_path_leads() -> None:
    with pytest.raises(PointError) as caught:
        find_module(model("vit_tiny_patch16_224"), "blocks.14")
    assert str(caught.value) == (
        "no module 'blocks.14' in VisionTransformer: 'blocks' (Sequential) has '0'..'11'. Did you mean 'blocks.11'?"
    )


@pytest.mark.parametrize(
    ("asked", "right"),
    [
        ("module.fc.weight", "fc.weight"),
        ("layer1.2.conv1.weight", "layer1.1.conv1.weight"),
        ("stage1.0.conv1.kernel", "layer1.0.conv1.weight"),
        ("classifier.bias", "fc.bias"),
    ],
)
def test_parameters(asked: str, right: str) -> None:
    with pytest.raises(PointError) as caught:
        find_parameter(model("resnet18"), asked)
    assert right in offered(str(caught.value))


def test_the_kind_is_wrong_and_the_path_right() -> None:
    resnet = model("resnet18")
    with pytest.raises(PointError, match="'layer1' is a module: record it with type 'ModuleOutputs'"):
        find_parameter(resnet, "layer1")
    with pytest.raises(PointError, match=r"'bn1\.running_mean' is a buffer, not a module"):
        find_module(resnet, "bn1.running_mean")
    with pytest.raises(PointError, match=r"'bn1\.running_mean' is a buffer, not a parameter"):
        find_parameter(resnet, "bn1.running_mean")
