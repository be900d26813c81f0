"""Models, inputs and specs to try: ``CASES`` are the ten small models, ``REAL_CASES`` five from transformers and timm.

A spec is a plain dict with MMRazor's six keys. Every case has at least one spec that records modules, one that records
functions and methods, and one with a delivery. Models are built on demand, each call gives new ones with equal weights.
"""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.models.arguments import Arguments
from tests.support.models.bn_dropout import BnDropout
from tests.support.models.builds import Builds
from tests.support.models.cnn import Cnn
from tests.support.models.decorated import DecoratedPlain, DecoratedWraps
from tests.support.models.features import Features
from tests.support.models.outputs import OutputsDataclass, OutputsDict
from tests.support.models.tied import Tied
from tests.support.models.twice import Twice
from tests.support.models.vit import Vit

Config = dict[str, Any]
Spec = dict[str, dict[str, Any]]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # positionals and keywords of one call


@dataclass(frozen=True, kw_only=True)
class Case:
    """A student, a teacher, their common inputs, and what to distill between them."""

    name: str
    student: Callable[[], nn.Module]
    teacher: Callable[[], nn.Module]
    example: Callable[[int, torch.Generator], Inputs]  # batch size, generator -> inputs
    classes: int = 5
    specs: Mapping[str, Spec]

    def build_student(self) -> nn.Module:
        """Build the student; every call gives equal weights."""
        return build(self.student, seed=1)

    def build_teacher(self) -> nn.Module:
        """Build the teacher; every call gives equal weights."""
        return build(self.teacher, seed=2)

    def inputs(self, batch: int = 4, seed: int = 0) -> Inputs:
        """Make the arguments of one call."""
        return self.example(batch, torch.Generator().manual_seed(seed))

    def labels(self, batch: int = 4, seed: int = 0) -> Tensor:
        """Make class labels (N,), for tests that add a loss of their own."""
        return torch.randint(self.classes, (batch,), generator=torch.Generator().manual_seed(seed))

    def batches(self, steps: int = 3, batch: int = 4) -> list[Inputs]:
        """Make the arguments of several calls."""
        return [self.inputs(batch, seed) for seed in range(steps)]

    def spec(self, name: str) -> Spec:
        """Give a copy of one spec, to change at will."""
        return copy.deepcopy(self.specs[name])


def build(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a model from one seed, leaving the generators as they were."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            return model()
    finally:
        random.setstate(state)


# --- writing specs


def modules(**sources: str) -> dict[str, Config]:
    """Record the outputs of modules: record name -> module path; the root is the empty path."""
    return points("ModuleOutputs", **sources)


def points(kind: str, **sources: str) -> dict[str, Config]:
    """Record points of one kind: record name -> source."""
    return {name: {"type": kind, "source": source} for name, source in sources.items()}


def conv(in_channel: int, out_channel: int, **options: Any) -> Config:
    """Describe a convolution without activation that brings one width to another."""
    return {
        "type": "ConvModuleConnector",
        "in_channel": in_channel,
        "out_channel": out_channel,
        "kernel_size": 1,
        "act_cfg": None,
        **options,
    }


def linear(in_features: int, out_features: int) -> Config:
    """Describe a linear layer that brings one width to another."""
    return {"type": "LinearConnector", "in_features": in_features, "out_features": out_features}


def deliver_function(path: str, calls: int = 1) -> Config:
    """Deliver the results of a function."""
    return {"type": "FunctionOutputs", "func_path": path, "max_keep_data": calls}


def deliver_method(path: str, calls: int = 1) -> Config:
    """Deliver the results of a method."""
    return {"type": "MethodOutputs", "method_path": path, "max_keep_data": calls}


def deliver_module(source: str, calls: int = 1) -> Config:
    """Deliver the outputs of the module at one path in both models."""
    return {"type": "ModuleOutputs", "source": source, "max_keep_data": calls}


L1: Config = {"type": "L1Loss", "loss_weight": 1.0}
L2: Config = {"type": "L2Loss", "normalize": False, "loss_weight": 0.5, "div_element": True}
L2_NORMALIZED: Config = {"type": "L2Loss", "normalize": True, "loss_weight": 2.0}
KL: Config = {"type": "KLDivergence", "tau": 2.0, "loss_weight": 1.5}
AT: Config = {"type": "ATLoss", "loss_weight": 50.0}
CWD: Config = {"type": "ChannelWiseDivergence", "tau": 1.0, "loss_weight": 0.5}

ARGUMENTS = {
    "L1Loss": ("s_feature", "t_feature"),
    "L2Loss": ("s_feature", "t_feature"),
    "ATLoss": ("s_feature", "t_feature"),
    "KLDivergence": ("preds_S", "preds_T"),
    "ChannelWiseDivergence": ("preds_S", "preds_T"),
}


@dataclass(frozen=True)
class Compare:
    """One loss between a record of the student and one of the teacher; the record names are equal on both sides."""

    loss: Config
    record: str
    student: Config  # further keys of the student's record info: record_idx, data_idx, connector
    teacher: Config


def compare(loss: Config, record: str, *, connector: str | None = None, **choice: int) -> Compare:
    """Compare one record of both models; ``choice`` (record_idx, data_idx) is for both, ``connector`` the student's."""
    return Compare(loss, record, choice if connector is None else {**choice, "connector": connector}, choice)


def spec(
    student: dict[str, Config],
    losses: dict[str, Compare],
    *,
    teacher: dict[str, Config] | None = None,
    deliveries: dict[str, Config] | None = None,
    connectors: dict[str, Config] | None = None,
) -> Spec:
    """Write out the six keys; the teacher's recorders are the student's where not given."""
    mappings: dict[str, dict[str, Config]] = {}
    for name, item in losses.items():
        of_student, of_teacher = ARGUMENTS[item.loss["type"]]
        mappings[name] = {
            of_student: {"recorder": item.record, "from_student": True, **item.student},
            of_teacher: {"recorder": item.record, "from_student": False, **item.teacher},
        }
    return copy.deepcopy(
        {
            "student_recorders": student,
            "teacher_recorders": student if teacher is None else teacher,
            "distill_deliveries": deliveries or {},
            "connectors": connectors or {},
            "distill_losses": {name: item.loss for name, item in losses.items()},
            "loss_forward_mappings": mappings,
        }
    )


def image(batch: int, generator: torch.Generator, size: int = 8) -> Tensor:
    """Draw images (N, 3, size, size)."""
    return torch.randn(batch, 3, size, size, generator=generator)


LOGITS = {"loss_logits": compare(KL, "logits")}  # of a record called logits
MODELS = "tests.support.models"


# --- the ten small models


def cnn() -> Case:
    """Works in place after almost every point."""
    grow = {"grow": conv(8, 12)}
    function, method = f"{MODELS}.cnn.squash", f"{MODELS}.cnn.Mixer.mix"
    calls = {
        **points("FunctionOutputs", squashed=function),
        **points("FunctionInputs", given=function),
        **points("MethodOutputs", mixed=method),
        **points("MethodInputs", unmixed=method),
    }
    return Case(
        name="cnn",
        student=lambda: Cnn(width=8, depth=1),
        teacher=lambda: Cnn(width=12, depth=2),
        example=lambda batch, generator: ((image(batch, generator),), {}),
        specs={
            "modules": spec(
                modules(norm="layers.0.bn1", shortcut="layers.0.bn2", relu="layers.0.relu", logits=""),
                {
                    "loss_norm": compare(L2, "norm", connector="grow"),
                    "loss_shortcut": compare(L2_NORMALIZED, "shortcut", connector="grow_more"),
                    "loss_relu": compare(AT, "relu", record_idx=1),
                    **LOGITS,
                },
                connectors={**grow, "grow_more": conv(8, 12, norm_cfg={"type": "BN"}, act_cfg={"type": "ReLU"})},
            ),
            "inputs": spec(
                points("ModuleInputs", norm="layers.0.bn1", relu="layers.0.relu", pooled="fc"),
                {
                    "loss_norm": compare(CWD, "norm", data_idx=0, connector="grow"),
                    "loss_relu": compare(L1, "relu", record_idx=1, data_idx=0, connector="grow"),
                    "loss_pooled": compare(L1, "pooled", data_idx=0, connector="widen"),
                },
                connectors={**grow, "widen": linear(8, 12)},
            ),
            "calls": spec(
                {**calls, **modules(logits="fc")},
                {
                    "loss_squashed": compare(L2, "squashed", record_idx=1, connector="grow"),
                    "loss_given": compare(L1, "given", record_idx=1, data_idx=0, connector="grow"),
                    "loss_mixed": compare(L2_NORMALIZED, "mixed"),
                    "loss_unmixed": compare(AT, "unmixed", data_idx=0),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "parameters": spec(
                {**points("Parameter", kernel="entry.weight"), **modules(logits="")},
                {"loss_kernel": compare(L1, "kernel"), **LOGITS},
            ),
            "deliver_method": spec(
                modules(stem="bn", logits=""),
                {"loss_stem": compare(L2, "stem", connector="grow"), **LOGITS},
                deliveries={"mix": deliver_method(method)},
                connectors=grow,
            ),
            "deliver_module": spec(
                modules(stem="bn", logits="fc"),
                {"loss_stem": compare(CWD, "stem", connector="grow"), **LOGITS},
                deliveries={"entry": deliver_module("entry")},
                connectors=grow,
            ),
        },
    )


def bn_dropout() -> Case:
    """Behaves differently in train and eval mode."""
    widen = {"widen": linear(10, 14)}
    function = f"{MODELS}.bn_dropout.center"
    noise = f"{MODELS}.bn_dropout.Noise"
    return Case(
        name="bn_dropout",
        student=lambda: BnDropout(width=10),
        teacher=lambda: BnDropout(width=14),
        example=lambda batch, generator: ((torch.randn(batch, 12, generator=generator),), {}),
        specs={
            "modules": spec(
                modules(norm="bn", hidden="hidden.1", logits=""),
                {
                    "loss_norm": compare(L2, "norm", connector="widen"),
                    "loss_hidden": compare(L1, "hidden", connector="widen_hidden"),
                    **LOGITS,
                },
                connectors={**widen, "widen_hidden": linear(10, 14)},
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", centered=function),
                    **points("FunctionInputs", given=function),
                    **points("MethodOutputs", scaled=f"{noise}.scale"),
                    **points("MethodInputs", unscaled=f"{noise}.scale"),
                },
                {
                    "loss_centered": compare(L2, "centered", record_idx=1, connector="widen"),
                    "loss_given": compare(L1, "given", record_idx=0, data_idx=0, connector="widen"),
                    "loss_scaled": compare(L2_NORMALIZED, "scaled", record_idx=1, connector="widen"),
                    "loss_unscaled": compare(L1, "unscaled", record_idx=0, data_idx=0, connector="widen"),
                },
                connectors=widen,
            ),
            "deliver_method": spec(
                {**points("MethodOutputs", scaled=f"{noise}.scale"), **modules(logits="")},
                {"loss_scaled": compare(L1, "scaled", record_idx=1, connector="widen"), **LOGITS},
                deliveries={"noise": deliver_method(f"{noise}.draw", calls=2)},
                connectors=widen,
            ),
        },
    )


def vit() -> Case:
    """Computes with shapes."""
    widen = {"widen": linear(16, 24)}
    attend, keep = f"{MODELS}.vit.attend", f"{MODELS}.vit.Masker.keep"
    return Case(
        name="vit",
        student=lambda: Vit(width=16, heads=2),
        teacher=lambda: Vit(width=24, heads=2),
        example=lambda batch, generator: ((image(batch, generator, 16),), {}),
        specs={
            "modules": spec(
                modules(patches="patch_embed", block="blocks.0", mlp="blocks.1.mlp.0", logits=""),
                {
                    "loss_patches": compare(AT, "patches"),
                    "loss_block": compare(L2, "block", connector="widen"),
                    "loss_mlp": compare(L1, "mlp", connector="widen_mlp"),
                    **LOGITS,
                },
                connectors={**widen, "widen_mlp": linear(32, 48)},
            ),
            "calls": spec(
                {
                    **points(
                        "FunctionOutputs", attended=attend, raw="torch.nn.functional.scaled_dot_product_attention"
                    ),
                    **points("FunctionInputs", attention=attend),
                    **points("MethodOutputs", hidden=f"{MODELS}.vit.Masker.hide"),
                    **points("MethodInputs", masked=keep),
                },
                {
                    "loss_attended": compare(L2, "attended", record_idx=1, connector="widen"),
                    "loss_raw": Compare(L1, "raw", {"record_idx": 1, "connector": "widen_head"}, {"record_idx": 0}),
                    "loss_values": compare(L1, "attention", data_idx=2, connector="widen_head"),
                    "loss_hidden": compare(L1, "hidden", connector="widen"),
                    "loss_masked": compare(L2_NORMALIZED, "masked", record_idx=1, data_idx=0, connector="widen"),
                },
                connectors={**widen, "widen_head": linear(8, 12)},
            ),
            "parameters": spec(
                {
                    **points("Parameter", places="pos_embed"),
                    **points("ModuleInputs", head="head"),
                    **modules(logits=""),
                },
                {
                    "loss_places": compare(L2, "places", connector="widen"),
                    "loss_head": compare(L2_NORMALIZED, "head", data_idx=0, connector="widen"),
                    **LOGITS,
                },
                connectors=widen,
            ),
            "deliver_method": spec(
                modules(block="blocks.1", logits=""),
                {"loss_block": compare(L2, "block", connector="widen"), **LOGITS},
                deliveries={"keep": deliver_method(keep, calls=2)},
                connectors=widen,
            ),
        },
    )


def twice() -> Case:
    """Runs one module several times."""
    grow = {"grow": conv(6, 9)}
    merge, jitter = f"{MODELS}.twice.merge", f"{MODELS}.twice.Jitter"
    return Case(
        name="twice",
        student=lambda: Twice(width=6),
        teacher=lambda: Twice(width=9),
        example=lambda batch, generator: ((image(batch, generator), image(batch, generator)), {}),
        specs={
            "modules": spec(
                modules(conv="conv", block="block", norm="block.1", logits=""),
                {
                    "loss_left": compare(L2, "conv", connector="grow"),
                    "loss_right": compare(L2, "conv", record_idx=1, connector="grow"),
                    "loss_block": compare(AT, "block", record_idx=1),
                    "loss_norm": compare(CWD, "norm", record_idx=1, connector="grow"),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "inputs": spec(
                points("ModuleInputs", conv="conv", block="block", root=""),
                {
                    "loss_block": compare(L1, "block", record_idx=1, data_idx=0, connector="grow"),
                    "loss_images": Compare(
                        L1, "conv", {"record_idx": 1, "data_idx": 0, "connector": "guess"}, {"data_idx": 0}
                    ),
                    "loss_root": Compare(L1, "root", {"data_idx": 1, "connector": "guess"}, {"data_idx": 0}),
                },
                connectors={**grow, "guess": conv(3, 3, kernel_size=3, padding=1)},
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", merged=merge),
                    **points("FunctionInputs", given=merge),
                    **points("MethodOutputs", scaled=f"{jitter}.scale"),
                    **points("MethodInputs", unscaled=f"{jitter}.scale"),
                },
                {
                    "loss_merged": compare(L2, "merged", record_idx=1, connector="grow"),
                    "loss_given": compare(L1, "given", data_idx=1, connector="grow"),
                    "loss_share": compare(L1, "given", data_idx=2),
                    "loss_scaled": compare(L2_NORMALIZED, "scaled", record_idx=1, connector="grow"),
                    "loss_unscaled": compare(AT, "unscaled", record_idx=1, data_idx=0),
                },
                connectors=grow,
            ),
            "parameters": spec(
                {**points("Parameter", share="share"), **modules(logits="fc")},
                {"loss_share": compare(L1, "share"), **LOGITS},
            ),
            "deliver_method": spec(
                {**points("FunctionOutputs", merged=merge), **modules(logits="")},
                {"loss_merged": compare(L1, "merged", connector="grow"), **LOGITS},
                deliveries={"factor": deliver_method(f"{jitter}.factor", calls=2)},
                connectors=grow,
            ),
            "deliver_function": spec(
                modules(conv="conv", logits="fc"),
                {"loss_right": compare(L2, "conv", record_idx=1, connector="grow"), **LOGITS},
                deliveries={"images": deliver_function(f"{MODELS}.twice.brighten", calls=2)},
                connectors=grow,
            ),
        },
    )


def tied() -> Case:
    """Shares one parameter between its first and its last layer."""
    widen = {"widen": linear(8, 12)}
    order, corrupter = f"{MODELS}.tied.order", f"{MODELS}.tied.Corrupter"

    def ids(batch: int, generator: torch.Generator) -> Inputs:
        return (torch.randint(20, (batch, 6), generator=generator),), {}

    return Case(
        name="tied",
        student=lambda: Tied(width=8, depth=1),
        teacher=lambda: Tied(width=12, depth=2),
        example=ids,
        classes=20,
        specs={
            "modules": spec(
                modules(words="embedding", layers="layers.0", logits="head"),
                {
                    "loss_words": compare(L2, "words", connector="widen"),
                    "loss_layers": compare(L1, "layers", connector="widen"),
                    "loss_logits": compare(L2_NORMALIZED, "logits"),
                },
                connectors=widen,
            ),
            "parameters": spec(
                {**points("Parameter", words="embedding.weight"), **modules(logits="")},
                {"loss_words": compare(L2, "words", connector="widen"), "loss_logits": compare(L1, "logits")},
                connectors=widen,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", ordered=order),
                    **points("FunctionInputs", unordered=order),
                    **points("MethodOutputs", dimmed=f"{corrupter}.dim"),
                    **points("MethodInputs", words=f"{corrupter}.dim"),
                },
                {
                    "loss_ordered": compare(L2, "ordered", record_idx=1, connector="widen"),
                    "loss_unordered": compare(L1, "unordered", data_idx=0, connector="widen"),
                    "loss_dimmed": compare(L1, "dimmed", connector="widen"),
                    "loss_words": compare(L1, "words", data_idx=0, connector="widen"),
                },
                connectors=widen,
            ),
            "deliver_method": spec(
                modules(words="embedding", logits=""),
                {"loss_words": compare(L2, "words", connector="widen"), "loss_logits": compare(L1, "logits")},
                deliveries={"ids": deliver_method(f"{corrupter}.replace")},
                connectors=widen,
            ),
        },
    )


def outputs(name: str, model: type[OutputsDict]) -> Case:
    """Return dataclasses and tuples, with a method that gives a dict and a function that gives a tuple."""
    grow = {"grow": conv(6, 9)}
    halve, paint = f"{MODELS}.outputs.halve", f"{MODELS}.outputs.Painter.paint"
    return Case(
        name=name,
        student=lambda: model(width=6),
        teacher=lambda: model(width=9),
        example=lambda batch, generator: ((image(batch, generator),), {}),
        specs={
            "modules": spec(
                modules(stem="stem", neck="neck", logits="fc"),
                {
                    "loss_stem": compare(CWD, "stem", connector="grow"),
                    "loss_fine": compare(L2, "neck", data_idx=0, connector="grow"),
                    "loss_coarse": compare(AT, "neck", data_idx=1),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", halves=halve),
                    **points("FunctionInputs", whole=halve),
                    **points("MethodInputs", unpainted=paint),
                    **modules(logits="fc"),
                },
                {
                    "loss_upper": compare(L2, "halves", data_idx=0, connector="grow"),
                    "loss_lower": compare(L1, "halves", data_idx=1, connector="grow"),
                    "loss_whole": compare(L2_NORMALIZED, "whole", data_idx=0, connector="grow"),
                    "loss_unpainted": compare(L1, "unpainted", data_idx=0),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "deliver_method": spec(
                modules(neck="neck", logits="fc"),
                {"loss_coarse": compare(L2, "neck", data_idx=1, connector="grow"), **LOGITS},
                deliveries={"paint": deliver_method(paint)},
                connectors=grow,
            ),
            "deliver_module": spec(
                modules(neck="neck", logits="fc"),
                {"loss_fine": compare(L1, "neck", data_idx=0, connector="grow"), **LOGITS},
                deliveries={"entry": deliver_module("entry")},
                connectors=grow,
            ),
        },
    )


def arguments() -> Case:
    """Takes keyword-only arguments."""
    widen = {"widen": linear(8, 12)}
    mean, gate = f"{MODELS}.arguments.masked_mean", f"{MODELS}.arguments.Gate"

    def tokens(batch: int, generator: torch.Generator) -> Inputs:
        mask = torch.rand(batch, 5, generator=generator) < 0.7
        return (torch.randn(batch, 5, 7, generator=generator),), {"mask": mask, "scale": 0.5}

    return Case(
        name="arguments",
        student=lambda: Arguments(width=8, depth=1),
        teacher=lambda: Arguments(width=12, depth=2),
        example=tokens,
        specs={
            "modules": spec(
                {**modules(layer="layers.0", logits=""), **points("ModuleInputs", before="layers.0")},
                {
                    "loss_layer": compare(L2, "layer", connector="widen"),
                    "loss_before": compare(L1, "before", data_idx=0, connector="widen"),
                    **LOGITS,
                },
                connectors=widen,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", mean=mean),
                    **points("FunctionInputs", tokens=mean),
                    **points("MethodOutputs", gated=f"{gate}.apply"),
                    **points("MethodInputs", ungated=f"{gate}.draw"),
                },
                {
                    "loss_masked": compare(L2, "mean", connector="widen"),
                    "loss_mean": compare(L2_NORMALIZED, "mean", record_idx=1, connector="widen"),
                    "loss_tokens": compare(L1, "tokens", record_idx=1, data_idx=0, connector="widen"),
                    "loss_gated": compare(L1, "gated", connector="widen"),
                    "loss_ungated": compare(L1, "ungated", data_idx=0, connector="widen"),
                },
                connectors=widen,
            ),
            "deliver_method": spec(
                {**points("MethodOutputs", gated=f"{gate}.apply"), **modules(logits="")},
                {"loss_gated": compare(L2, "gated", connector="widen"), **LOGITS},
                deliveries={"gate": deliver_method(f"{gate}.draw")},
                connectors=widen,
            ),
        },
    )


def builds() -> Case:
    """Draws from Python's generator: every spec delivers the number, as it must be named to be captured."""
    grow = {"grow": conv(6, 9)}
    sharpen, offset = f"{MODELS}.builds.sharpen", f"{MODELS}.builds.Offset"
    number = {"number": deliver_method(f"{offset}.draw")}
    return Case(
        name="builds",
        student=lambda: Builds(width=6),
        teacher=lambda: Builds(width=9),
        example=lambda batch, generator: ((image(batch, generator),), {}),
        specs={
            "modules": spec(
                modules(first="conv1", second="conv2", logits=""),
                {
                    "loss_first": compare(L2, "first", connector="grow"),
                    "loss_second": compare(CWD, "second", connector="grow"),
                    **LOGITS,
                },
                deliveries=number,
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", sharp=sharpen, pooled="torch.nn.functional.silu"),
                    **points("FunctionInputs", blunt=sharpen),
                    **points("MethodOutputs", moved=f"{offset}.apply"),
                    **points("MethodInputs", unmoved=f"{offset}.apply"),
                },
                {
                    "loss_sharp": compare(L2, "sharp", record_idx=1, connector="widen"),
                    "loss_pooled": compare(L1, "pooled", connector="widen"),
                    "loss_blunt": compare(L1, "blunt", record_idx=1, data_idx=0, connector="widen"),
                    "loss_moved": compare(L2_NORMALIZED, "moved", connector="grow"),
                    "loss_unmoved": compare(AT, "unmoved", data_idx=0),
                },
                deliveries=number,
                connectors={**grow, "widen": linear(6, 9)},
            ),
            "deliver_method": spec(
                {**points("MethodOutputs", moved=f"{offset}.apply"), **modules(logits="")},
                {"loss_moved": compare(L1, "moved", connector="grow"), **LOGITS},
                deliveries=number,
                connectors=grow,
            ),
        },
    )


def features() -> Case:
    """Hands on a list, and writes into it."""
    grow = {"grow": conv(6, 9)}
    resize, reweight = f"{MODELS}.features.resize", f"{MODELS}.features.Reweight"
    return Case(
        name="features",
        student=lambda: Features(width=6),
        teacher=lambda: Features(width=9),
        example=lambda batch, generator: ((image(batch, generator),), {}),
        specs={
            "modules": spec(
                modules(levels="backbone", neck="neck", lateral="neck.lateral", logits=""),
                {
                    "loss_fine": compare(L2, "levels", data_idx=0, connector="grow"),
                    "loss_coarse": compare(AT, "levels", data_idx=2),
                    "loss_neck": compare(L1, "neck", data_idx=1, connector="grow"),
                    "loss_lateral": compare(CWD, "lateral", record_idx=1, connector="grow"),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", resized=resize),
                    **points("FunctionInputs", small=resize),
                    **points("MethodOutputs", faded=f"{reweight}.fade"),
                    **points("MethodInputs", unfaded=f"{reweight}.fade"),
                    **modules(logits=""),  # read, so that the teacher draws all its numbers and the student the same
                },
                {
                    **LOGITS,
                    "loss_resized": compare(L2, "resized", record_idx=1, connector="grow"),
                    "loss_like": compare(L1, "small", record_idx=1, data_idx=1, connector="grow"),
                    "loss_faded": compare(L1, "faded", record_idx=1, connector="grow"),
                    "loss_unfaded": compare(L2_NORMALIZED, "unfaded", data_idx=0, connector="grow"),
                },
                connectors=grow,
            ),
            "deliver_method": spec(
                modules(levels="backbone", neck="neck", logits=""),
                {
                    "loss_levels": compare(L2, "levels", data_idx=1, connector="grow"),
                    "loss_neck": compare(L1, "neck", data_idx=2, connector="grow"),
                    **LOGITS,
                },
                deliveries={"weights": deliver_method(f"{reweight}.__call__")},
                connectors=grow,
            ),
        },
    )


def decorated(name: str, model: type[DecoratedWraps], pixels: str) -> Case:
    """Hide the arguments behind a decorator; with labels, the student has a loss of its own."""
    grow = {"grow": conv(6, 9)}
    normalise, dim = f"{MODELS}.decorated.normalise", f"{MODELS}.decorated.Dimmer.dim"

    def keywords(batch: int, generator: torch.Generator) -> Inputs:
        labels = torch.randint(5, (batch,), generator=generator)
        return (), {pixels: image(batch, generator), "labels": labels}

    return Case(
        name=name,
        student=lambda: model(width=6),
        teacher=lambda: model(width=9),
        example=keywords,
        specs={
            "modules": spec(
                modules(conv="conv", logits="fc"),
                {"loss_conv": compare(L2, "conv", connector="grow"), **LOGITS},
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", normal=normalise),
                    **points("FunctionInputs", raw=normalise),
                    **points("MethodOutputs", dimmed=dim),
                    **points("MethodInputs", bright=dim),
                },
                {
                    "loss_normal": compare(L2, "normal", record_idx=1, connector="grow"),
                    "loss_raw": compare(L1, "raw", record_idx=1, data_idx=0, connector="grow"),
                    "loss_dimmed": compare(L1, "dimmed"),
                    "loss_bright": compare(AT, "bright", data_idx=0),
                },
                connectors=grow,
            ),
            "deliver_method": spec({}, {}, deliveries={"dim": deliver_method(dim)}),
            "deliver_both": spec(
                modules(conv="conv", logits="fc"),
                {"loss_conv": compare(L2_NORMALIZED, "conv", connector="grow"), **LOGITS},
                deliveries={"noise": deliver_function(f"{MODELS}.decorated.shake"), "dim": deliver_method(dim)},
                connectors=grow,
            ),
        },
    )


# --- five real models


def hf_resnet() -> Case:
    """A ResNet of transformers; the teacher is wider and deeper behind an equal embedder."""

    def model(widths: list[int], depths: list[int]) -> nn.Module:
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(
            embedding_size=8, hidden_sizes=widths, depths=depths, layer_type="basic", num_labels=5, return_dict=True
        )
        return ResNetForImageClassification(config)

    grow = {"grow": conv(12, 16)}
    pool, embed = (
        "torch.nn.functional.adaptive_avg_pool2d",
        "transformers.models.resnet.modeling_resnet.ResNetEmbeddings",
    )
    return Case(
        name="hf_resnet",
        student=lambda: model([8, 12], [1, 1]),
        teacher=lambda: model([12, 16], [1, 2]),
        example=lambda batch, generator: ((), {"pixel_values": image(batch, generator, 32)}),
        specs={
            "modules": spec(
                modules(stage="resnet.encoder.stages.1", logits="classifier"),
                {"loss_stage": compare(L2, "stage", connector="grow"), **LOGITS},
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", pooled=pool),
                    **points("FunctionInputs", last=pool),
                    **points("MethodOutputs", embedded=f"{embed}.forward"),
                },
                {
                    "loss_pooled": compare(L2_NORMALIZED, "pooled", connector="grow"),
                    "loss_last": compare(AT, "last", data_idx=0),
                    "loss_embedded": compare(L1, "embedded"),
                },
                connectors=grow,
            ),
            "deliver_module": spec(
                modules(stage="resnet.encoder.stages.1", logits="classifier"),
                {"loss_stage": compare(CWD, "stage", connector="grow"), **LOGITS},
                deliveries={"embedder": deliver_module("resnet.embedder")},
                connectors=grow,
            ),
        },
    )


def bert() -> Case:
    """A BERT with padded sentences, dropout and eager attention; the teacher is deeper."""
    path = "transformers.models.bert.modeling_bert"
    same = {"same": linear(16, 16)}

    def model(layers: int) -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=16,
            num_labels=5,
            initializer_range=0.2,
            attn_implementation="eager",
        )
        return BertForSequenceClassification(config)

    def sentences(batch: int, generator: torch.Generator) -> Inputs:
        ids = torch.randint(1, 30, (batch, 7), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, -3:] = 0
        return (), {"input_ids": ids, "attention_mask": mask}

    return Case(
        name="bert",
        student=lambda: model(1),
        teacher=lambda: model(2),
        example=sentences,
        specs={
            "modules": spec(
                modules(
                    words="bert.embeddings", layer="bert.encoder.layer.0", pooled="bert.pooler", logits="classifier"
                ),
                {
                    "loss_words": compare(L1, "words"),
                    "loss_layer": compare(L2, "layer", connector="same"),
                    "loss_pooled": compare(L2_NORMALIZED, "pooled"),
                    **LOGITS,
                },
                connectors=same,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", attended=f"{path}.eager_attention_forward"),
                    **points("MethodOutputs", pooled=f"{path}.BertPooler.forward"),
                    **points("MethodInputs", final=f"{path}.BertPooler.forward"),
                },
                {
                    "loss_attended": compare(L2, "attended", data_idx=0),
                    "loss_weights": compare(L1, "attended", data_idx=1),
                    "loss_pooled": compare(L1, "pooled", connector="same"),
                    "loss_final": compare(L1, "final", data_idx=0, connector="same"),
                },
                connectors=same,
            ),
            "deliver_module": spec(
                modules(layer="bert.encoder.layer.0", logits="classifier"),
                {"loss_layer": compare(L2, "layer", connector="same"), **LOGITS},
                deliveries={"words": deliver_module("bert.embeddings")},
                connectors=same,
            ),
        },
    )


def llama(name: str, *, labels: bool) -> Case:
    """A Llama without cache; the teacher has more heads of equal size. With labels the student has its own loss."""
    path = "transformers.models.llama.modeling_llama"
    widen = {"widen": linear(16, 24)}

    def model(width: int, layers: int) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=30,
            hidden_size=width,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=width // 8,
            num_key_value_heads=1,
            max_position_embeddings=16,
            initializer_range=0.2,
        )
        return LlamaForCausalLM(config)

    def sentences(batch: int, generator: torch.Generator) -> Inputs:
        ids = torch.randint(1, 30, (batch, 7), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        own = {"labels": ids.masked_fill(mask == 0, -100)} if labels else {}
        return (), {"input_ids": ids, "attention_mask": mask, "use_cache": False, **own}

    rotary = f"{path}.apply_rotary_pos_emb"
    return Case(
        name=name,
        student=lambda: model(16, 1),
        teacher=lambda: model(24, 2),
        example=sentences,
        classes=30,
        specs={
            "modules": spec(
                modules(layer="model.layers.0", norm="model.norm", logits="lm_head"),
                {
                    "loss_layer": compare(L2, "layer", connector="widen"),
                    "loss_norm": compare(L2_NORMALIZED, "norm", connector="widen"),
                    "loss_logits": compare(L1, "logits"),
                },
                connectors=widen,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", rotated=rotary),
                    **points("FunctionInputs", unrotated=rotary),
                    **points("MethodOutputs", normed=f"{path}.LlamaRMSNorm.forward"),
                    **points("MethodInputs", before=f"{path}.LlamaMLP.forward"),
                },
                {
                    "loss_keys": compare(L2, "rotated", data_idx=1),
                    "loss_unrotated": compare(L1, "unrotated", data_idx=1),
                    "loss_normed": compare(L1, "normed", record_idx=1, connector="widen"),
                    "loss_before": compare(L2_NORMALIZED, "before", data_idx=0, connector="widen"),
                },
                connectors=widen,
            ),
            "deliver_module": spec(
                modules(layer="model.layers.0", logits="lm_head"),
                {"loss_layer": compare(L2, "layer", connector="widen"), "loss_logits": compare(L1, "logits")},
                deliveries={"rotary": deliver_module("model.rotary_emb")},
                connectors=widen,
            ),
        },
    )


def timm_resnet18() -> Case:
    """A ResNet of timm, in place throughout; the teacher has more blocks, and wider ones."""

    def model(depths: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
        import timm

        return timm.create_model("resnet18", num_classes=5, layers=depths, channels=widths, zero_init_last=False)

    grow = {"grow": conv(16, 24)}
    method = "timm.models.resnet.ResNet.forward_features"
    return Case(
        name="timm_resnet18",
        student=lambda: model((1, 1, 1, 1), (8, 8, 12, 16)),
        teacher=lambda: model((1, 1, 1, 2), (8, 12, 16, 24)),
        example=lambda batch, generator: ((image(batch, generator, 32),), {}),
        specs={
            "modules": spec(
                modules(stem="bn1", norm="layer4.0.bn2", last="layer4", logits="fc"),
                {
                    "loss_stem": compare(AT, "stem"),
                    "loss_norm": compare(L2, "norm", connector="grow"),
                    "loss_last": compare(L1, "last", connector="grow"),
                    **LOGITS,
                },
                connectors=grow,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", activated="torch.nn.functional.relu"),
                    **points("FunctionInputs", linear="torch.nn.functional.relu"),
                    **points("MethodOutputs", features=method),
                },
                {
                    "loss_activated": compare(AT, "activated", record_idx=1),
                    "loss_linear": compare(L1, "linear", record_idx=0, data_idx=0),
                    "loss_features": compare(L2_NORMALIZED, "features", connector="grow"),
                },
                connectors=grow,
            ),
            "deliver_module": spec(
                modules(last="layer4", logits=""),
                {"loss_last": compare(L2, "last", connector="grow"), **LOGITS},
                deliveries={"stem": deliver_module("bn1")},
                connectors=grow,
            ),
        },
    )


def timm_vit_tiny() -> Case:
    """A vision transformer of timm; the teacher is deeper."""
    method = "timm.models.vision_transformer.VisionTransformer"

    def model(depth: int) -> nn.Module:
        import timm

        options = {"img_size": 32, "embed_dim": 24, "depth": depth, "num_heads": 3, "num_classes": 5}
        vit = timm.create_model("vit_tiny_patch16_224", **options)
        for value in vit.parameters():
            if value.ndim > 1:
                nn.init.normal_(value, std=0.2)
        return vit

    same = {"same": linear(24, 24)}
    return Case(
        name="timm_vit_tiny",
        student=lambda: model(2),
        teacher=lambda: model(3),
        example=lambda batch, generator: ((image(batch, generator, 32),), {}),
        specs={
            "modules": spec(
                modules(patches="patch_embed", block="blocks.1", attention="blocks.0.attn", logits="head"),
                {
                    "loss_patches": compare(L1, "patches"),
                    "loss_block": compare(L2, "block", connector="same"),
                    "loss_attention": compare(L2_NORMALIZED, "attention", connector="same"),
                    **LOGITS,
                },
                connectors=same,
            ),
            "calls": spec(
                {
                    **points("FunctionOutputs", attended="torch.nn.functional.scaled_dot_product_attention"),
                    **points("MethodOutputs", placed=f"{method}._pos_embed", pooled=f"{method}.pool"),
                    **points("MethodInputs", tokens=f"{method}.pool"),
                },
                {
                    "loss_attended": compare(L1, "attended", record_idx=1),
                    "loss_placed": compare(L1, "placed"),
                    "loss_pooled": compare(L2, "pooled", connector="same"),
                    "loss_tokens": compare(L2_NORMALIZED, "tokens", data_idx=0, connector="same"),
                },
                connectors=same,
            ),
            "deliver_module": spec(
                modules(block="blocks.1", logits=""),
                {"loss_block": compare(L2, "block", connector="same"), **LOGITS},
                deliveries={"patches": deliver_module("patch_embed")},
                connectors=same,
            ),
            "deliver_method": spec(
                modules(block="blocks.1", logits=""),
                {"loss_block": compare(L2, "block", connector="same"), **LOGITS},
                deliveries={"placed": deliver_method(f"{method}._pos_embed")},
                connectors=same,
            ),
        },
    )


SMALL = (
    cnn(),
    bn_dropout(),
    vit(),
    twice(),
    tied(),
    outputs("outputs_dict", OutputsDict),
    outputs("outputs_dataclass", OutputsDataclass),
    arguments(),
    builds(),
    features(),
    decorated("decorated_wraps", DecoratedWraps, "pixels"),
    decorated("decorated_plain", DecoratedPlain, "pixel_values"),
)
REAL = (
    hf_resnet(),
    bert(),
    llama("llama", labels=False),
    llama("llama_labels", labels=True),
    timm_resnet18(),
    timm_vit_tiny(),
)

CASES: dict[str, Case] = {case.name: case for case in SMALL}
REAL_CASES: dict[str, Case] = {case.name: case for case in REAL}


def every(cases: Mapping[str, Case]) -> list[tuple[str, str]]:
    """List ``(case name, spec name)`` of all specs, to parametrise a test."""
    return [(name, spec_name) for name, case in cases.items() for spec_name in case.specs]
