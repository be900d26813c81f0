"""The distillation configs of MMRazor one by one: which networks stand in for theirs, and what they are called with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.standins.classifier import ImageClassifier, classifier, labelled
from tests.support.standins.deit import DeiTClsHead, DistilledVisionTransformer
from tests.support.standins.detector import FPN, Detector, TwoStageHead, boxed, one_stage, two_stage
from tests.support.standins.generators import DAFLGenerator, ZSKTGenerator
from tests.support.standins.mobile import MobileNetV2, RegNetY, ShuffleNetV2
from tests.support.standins.resnet import ResNet, widths
from tests.support.standins.segmentor import EncoderDecoder, mapped
from tests.support.standins.swin import SwinTransformer
from tests.support.standins.wide_resnet import WideResNet

FOLDER = Path(__file__).parents[3] / "examples" / "mmrazor"
Make = Callable[[], nn.Module]
Call = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One config.

    Args:
        name: Of its file, without the suffix.
        student: Makes the student.
        teacher: Makes the teacher, several by name, or None for a student that is its own.
        call: Makes the arguments of one call from a seed.
        generator: What makes the images of the call's noise, for what trains it.
        after: The config whose distiller is saved, and under which name, before this one starts.
        teacher_mode: In place of the config's, where a part of the teacher that a graph leaves out draws numbers.
        slow: Whether it is heavy, or so much like another that it need not run every time.
    """

    name: str
    student: Make
    teacher: Make | Mapping[str, Make] | None
    call: Callable[[int], Call]
    generator: Make | None = None
    after: tuple[str, str] | None = None
    teacher_mode: str | None = None
    slow: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.yaml"


def settled(make: Make, seed: int) -> nn.Module:
    """Make a model from a seed, with normalisations that look trained: none of their channels is like another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


SHALLOW = (1, 1, 1, 1)  # blocks of each stage where a config names none of them


def in1k(depth: int, blocks: tuple[int, ...] | None = SHALLOW) -> Make:
    return lambda: classifier(ResNet(depth, blocks=blocks), widths(depth)[3], 1000)


def cifar(depth: int, blocks: tuple[int, ...] | None = SHALLOW, classes: int = 10) -> Make:
    return lambda: classifier(ResNet(depth, "cifar", blocks), widths(depth)[3], classes)


def wide(depth: int, widen: int) -> Make:
    return lambda: classifier(WideResNet(depth, widen), 64 * widen, 10)


def contrasted(seed: int) -> Call:
    """Make images with labels and the indices that CRD takes."""
    images, samples = labelled(2, 32, 10, seed)
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.randint(50000, (2, 16385), generator=generator)
    return images, {**samples, "sample_idx": contrast[:, 0].clone(), "contrast_sample_idxs": contrast}


def noise(width: int) -> Callable[[int], Call]:
    return lambda seed: (torch.randn(2, width, generator=torch.Generator().manual_seed(seed)),)


def images(seed: int) -> Call:
    return (labelled(2, 32, 10, seed)[0],)


def of_in1k(seed: int) -> Call:
    return labelled(4, 32, 1000, seed)


def of_cifar(seed: int) -> Call:
    return labelled(2, 32, 10, seed)


def of_coco(seed: int) -> Call:
    return boxed(2, 128, seed)


def larger_coco(seed: int) -> Call:
    return boxed(2, 192, seed)


def of_cityscapes(seed: int) -> Call:
    return mapped(2, 64, seed)


def deit() -> ImageClassifier:
    return ImageClassifier(DistilledVisionTransformer(size=32), DeiTClsHead())


def regnet() -> ImageClassifier:
    return classifier(RegNetY(), 3024, 1000)


def mask_rcnn_swin() -> Detector:
    return Detector(SwinTransformer(), FPN(SwinTransformer.widths, 0, "pool"), TwoStageHead())


FCOS = partial(one_stage, extra="output", kinds=("loss_bbox", "loss_centerness"))
POINTS = partial(one_stage, kinds=("loss_pts_init", "loss_pts_refine"))
FCOS3D = partial(one_stage, extra="output", kinds=("loss_offset", "loss_depth", "loss_size", "loss_rotsin"))
GFL = partial(one_stage, extra="output", kinds=("loss_bbox", "loss_dfl"))
DAFL = partial(DAFLGenerator, 32, 1000, 128)
DFAD = partial(DAFLGenerator, 32, 256, 128, 1e-5)
ZSKT = partial(ZSKTGenerator, 32, 256, 128)

PAIR: dict[str, Any] = {"student": in1k(18), "teacher": in1k(34), "call": of_in1k}  # the pair of most configs
DEEPER: dict[str, Any] = {"student": in1k(18, None), "teacher": in1k(50, None), "call": of_in1k}
SMALL: dict[str, Any] = {"student": cifar(18), "teacher": cifar(50), "call": of_cifar}
FACTOR: dict[str, Any] = SMALL | {"student": cifar(18, (1, 1, 1, 2)), "teacher": cifar(50, (1, 1, 1, 3))}
FREE: dict[str, Any] = {"student": cifar(18), "teacher": {"res34": cifar(34)}, "call": images}


def detectors(student: Make, teacher: Make, *, larger: bool = False) -> dict[str, Any]:
    return {"student": student, "teacher": teacher, "call": larger_coco if larger else of_coco}


RETINA, RETINA_101, RETINA_X101 = (partial(one_stage, *of) for of in ((50,), (101,), (101, 64)))
FASTER, FASTER_101 = partial(two_stage, 50), partial(two_stage, 101)

ROWS = [
    Row(name="abloss_pretrain_resnet50_resnet18", **DEEPER, slow=True),
    Row(
        name="abloss_logits_resnet50_resnet18",
        **DEEPER,
        after=("abloss_pretrain_resnet50_resnet18", "abloss_pretrain.pth"),
    ),
    Row(
        name="byot_resnet18",
        student=cifar(18, (2, 2, 2, 1), 100),
        teacher=None,
        call=lambda seed: labelled(2, 32, 100, seed),
    ),
    Row(name="crd_resnet50_resnet18", **SMALL | {"call": contrasted}),
    Row(name="dafl_resnet34_resnet18_student", **FREE, slow=True),
    Row(name="dafl_resnet34_resnet18_generator", **FREE | {"call": noise(1000)}, generator=DAFL),
    Row(
        name="deit_regnety160_deit_base", student=deit, teacher=lambda: classifier(RegNetY(), 3024, 1000), call=of_in1k
    ),
    Row(name="dfad_resnet34_resnet18_student", **FREE, slow=True),
    Row(name="dfad_resnet34_resnet18_generator", **FREE | {"call": noise(256)}, generator=DFAD, slow=True),
    Row(name="dist_resnet34_resnet18", **PAIR),
    Row(name="dkd_resnet34_resnet18", **PAIR),
    Row(name="factor_transfer_pretrain_resnet50_resnet18", **FACTOR, slow=True),
    Row(
        name="factor_transfer_train_resnet50_resnet18",
        **FACTOR,
        after=("factor_transfer_pretrain_resnet50_resnet18", "factor_transfer_pretrain.pth"),
        slow=True,
    ),
    Row(name="fitnets_resnet50_resnet18", **DEEPER),
    Row(name="kd_resnet34_resnet18", **PAIR, slow=True),
    Row(
        name="kd_resnet50_mobilenet_v2",
        **PAIR | {"student": lambda: classifier(MobileNetV2(), 1280, 1000), "teacher": in1k(50)},
        slow=True,
    ),
    Row(
        name="kd_resnet50_shufflenet_v2",
        **PAIR | {"student": lambda: classifier(ShuffleNetV2(), 1024, 1000), "teacher": in1k(50)},
    ),
    Row(name="ofd_wrn28_4_wrn16_2", student=wide(16, 2), teacher=wide(28, 4), call=of_cifar),
    Row(name="rkd_resnet34_resnet18", **PAIR),
    Row(name="wsld_resnet34_resnet18", **PAIR),
    Row(
        name="zskt_resnet34_resnet18_student",
        **FREE | {"student": cifar(18, (2, 2, 2, 2)), "teacher": {"res34": cifar(34, None)}},
    ),
    Row(name="zskt_resnet34_resnet18_generator", **FREE | {"call": noise(256)}, generator=ZSKT),
    Row(name="cwd_faster_rcnn_r101_r50", **detectors(FASTER, FASTER_101)),
    Row(name="cwd_retinanet_r101_r50", **detectors(RETINA, RETINA_101, larger=True), slow=True),
    Row(name="cwd_retinanet_r101_r50_visualization", **detectors(RETINA, RETINA_101, larger=True), slow=True),
    Row(name="cwd_gfl_r101_r50", **detectors(partial(GFL, 50), partial(GFL, 101), larger=True), slow=True),
    Row(name="fbkd_faster_rcnn_r101_r50", **detectors(FASTER, FASTER_101)),
    Row(name="mgd_retinanet_x101_r50", **detectors(RETINA, RETINA_X101, larger=True)),
    Row(name="pkd_faster_rcnn_r101_r50", **detectors(FASTER, FASTER_101)),
    Row(name="pkd_retinanet_x101_r50", **detectors(RETINA, RETINA_X101), slow=True),
    Row(name="pkd_fcos_x101_retinanet_r50", **detectors(RETINA, partial(FCOS, 101, 64)), slow=True),
    Row(name="pkd_mask_rcnn_swin_retinanet_r50", **detectors(RETINA, mask_rcnn_swin), slow=True),
    Row(name="pkd_reppoints_x101_r50", **detectors(partial(POINTS, 50), partial(POINTS, 101, 64)), slow=True),
    Row(name="pkd_fcos3d_r101_r50", **detectors(partial(FCOS3D, 50), partial(FCOS3D, 101)), slow=True),
    Row(
        name="cwd_pspnet_r101_r18",
        student=partial(EncoderDecoder, 18, 128),
        teacher=partial(EncoderDecoder, 101, 512),
        call=of_cityscapes,
        teacher_mode="eval",
    ),
]


def made(row: Row) -> tuple[nn.Module, nn.Module | dict[str, nn.Module] | None]:
    """Make the student and the teacher of a config; every call gives equal weights."""
    student = settled(row.student, 1)
    if row.teacher is None:
        return student, None
    if isinstance(row.teacher, Mapping):
        return student, {name: settled(make, 2) for name, make in row.teacher.items()}
    return student, settled(row.teacher, 2)


def arguments(row: Row, seed: int = 0) -> Call:
    """Make the arguments of a call; a generator's images hang on its weights."""
    given = row.call(seed)
    return given if row.generator is None else (generator_of(row.name)(*given),)


@cache
def generator_of(name: str) -> nn.Module:
    """Make the generator of a config, once."""
    return settled(next(row.generator for row in ROWS if row.name == name and row.generator), 3)
