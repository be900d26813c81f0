"""Recipes: the points that they find, the specs that they make, and that these train, on pairs of models of timm."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

import fxkd
from fxkd import recipes
from fxkd.errors import SpecError
from tests.support.oracle import assert_same

CLASSES = 7
EXTRA = {"labels": torch.tensor([0, 3, 6, 1]), "data_samples": torch.arange(4)}


def net(name: str, seed: int, **options: Any) -> nn.Module:
    import timm

    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm's last norm of a block is 0 at the start
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model


def small() -> nn.Module:
    """A ResNet-18 with one block in each stage."""
    return net("resnet18", 1, layers=(1, 1, 1, 1), channels=(4, 8, 16, 32))


def big() -> nn.Module:
    """A ResNet-50 with one block in each stage."""
    return net("resnet50", 2, layers=(1, 1, 1, 1), channels=(4, 8, 8, 16))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only wait for other threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(size: int = 64) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


def hooked(model: nn.Module, *paths: str, train: bool) -> list[Tensor]:
    """Give the values at some points by plain hooks."""
    found: dict[str, Tensor] = {}
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda m, a, value, path=path: found.update({path: value}))
    model.train(train)(images())
    return [found[path] for path in paths]


def prepared(spec: fxkd.Spec, student: nn.Module, teacher: Any, backend: Any = "graph") -> fxkd.Distiller:
    torch.manual_seed(3)
    x = images().requires_grad_(spec.teacher_gradients)
    given = {"x": x, **{name: EXTRA[name] for name in spec.inputs}}
    return fxkd.prepare(student, teacher, spec, example_inputs=given, backend=backend, verify=False)


def step(distiller: fxkd.Distiller) -> tuple[Any, Tensor]:
    """Run one step on seeded draws; give what it gave and the images with their gradient."""
    torch.manual_seed(4)
    x = images().requires_grad_()
    out = distiller(x=x, **{name: EXTRA[name] for name in distiller.spec.inputs})
    out.loss.backward()
    return out, x


def sources(recorders: Any) -> list[str]:
    return [recorder.source for recorder in recorders.values()]


# Every recipe trains

Made = fxkd.Spec | tuple[fxkd.Spec, fxkd.Spec]
MADE: dict[str, Callable[[nn.Module, Any], Made]] = {
    "logits": lambda s, t: recipes.logits(s, t, images(), labels="labels"),
    "dkd": lambda s, t: recipes.dkd(s, t, images()),
    "dist": lambda s, t: recipes.dist(s, t, images()),
    "wsld": lambda s, t: recipes.wsld(s, t, images()),
    "fitnet": lambda s, t: recipes.fitnet(s, t, images()),
    "attention_transfer": lambda s, t: recipes.attention_transfer(s, t, images()),
    "ofd": lambda s, t: recipes.ofd(s, t, images()),
    "ab, pretrain": lambda s, t: recipes.ab(s, t, images(), stage="pretrain"),
    "ab, logits": lambda s, t: recipes.ab(s, t, images(), stage="logits"),
    "factor_transfer, pretrain": lambda s, t: recipes.factor_transfer(s, t, images(), stage="pretrain"),
    "factor_transfer, train": lambda s, t: recipes.factor_transfer(s, t, images(), stage="train"),
    "rkd": lambda s, t: recipes.rkd(s, t, images()),
    "crd": lambda s, t: recipes.crd(s, t, images(), sample_n=20, neg_num=5, dim_out=16),
    "cwd": lambda s, t: recipes.cwd(s, t, images()),
    "pkd": lambda s, t: recipes.pkd(s, t, images()),
    "mgd": lambda s, t: recipes.mgd(s, t, images()),
    "fbkd": lambda s, t: recipes.fbkd(s, t, images(), positions=4),
    "byot": lambda s, t: recipes.byot(s, None, images()),
    "dafl": lambda s, t: recipes.dafl(s, {"big": t}, images()),
    "dfad": lambda s, t: recipes.dfad(s, {"big": t}, images()),
    "zskt": lambda s, t: recipes.zskt(s, {"big": t}, images()),
}
IDLE = {"factor_transfer, pretrain": {"student"}, "factor_transfer, train": {"connectors.paraphraser"}}
GENERATES = ("dafl", "dfad", "zskt")
ALONE = ("byot",)


def test_every_recipe_is_tried() -> None:
    tried = {name.partition(",")[0] for name in MADE}
    assert set(recipes.names()) - {"of_tests"} - {"last_layers", "lad"} == tried


def all_specs(name: str, student: nn.Module, teacher: nn.Module) -> list[fxkd.Spec]:
    made = MADE[name](student, teacher)
    return list(made) if isinstance(made, tuple) else [made]


@pytest.mark.parametrize("name", MADE)
def test_a_recipe_trains(name: str) -> None:
    student, teacher = small(), big()
    specs = all_specs(name, student, teacher)
    named: Any = None if name in ALONE else {"big": teacher} if name in GENERATES else teacher
    for spec, backend in zip(reversed(specs), ("graph", "eager"), strict=False):
        assert fxkd.Spec.load(yaml.safe_load(spec.to_yaml())) == spec == fxkd.Spec.load(spec.to_dict())
        student.zero_grad()
        distiller = prepared(spec, student, named, backend)
        out, x = step(distiller)
        assert all(loss.isfinite() and loss != 0 for loss in out.losses.values())
        idle = IDLE.get(name, set())
        for place, parameter in distiller.named_parameters():
            if not place.startswith("student.") and not any(place.startswith(part) for part in idle):
                assert parameter.grad is not None, place
                assert parameter.grad.isfinite().all(), place
        learns = "student" not in idle and (bool(spec.student_recorders) or bool(spec.student_loss))
        assert any(parameter.grad is not None for parameter in student.parameters()) is learns
        assert not any(parameter.requires_grad for parameter in teacher.parameters()) or name in ALONE
        if spec.teacher_gradients:
            assert x.grad is not None
            assert x.grad.abs().sum() > 0


SAME = ["fitnet", "ofd", "byot"]
REST = [pytest.param(name, marks=pytest.mark.slow) for name in MADE if name not in SAME]


@pytest.mark.parametrize("name", [*SAME, *REST])
def test_both_backends_agree(name: str) -> None:
    results = []
    for backend in ("graph", "eager"):
        student, teacher = small(), big()
        spec = all_specs(name, student, teacher)[-1]
        named: Any = None if name in ALONE else {"big": teacher} if name in GENERATES else teacher
        out, _ = step(prepared(spec, student, named, backend))
        gradients = {place: p.grad for place, p in student.named_parameters() if p.grad is not None}
        results.append((out.losses, gradients, out.loss.detach()))
    assert_same(results[0], results[1], 1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["attention_transfer", pytest.param("logits", marks=pytest.mark.slow)])
def test_a_graph_is_verified(name: str) -> None:
    student, teacher = small().double(), big().double()
    (spec,) = all_specs(name, small(), big())
    given = {"x": images().double(), **{extra: EXTRA[extra] for extra in spec.inputs}}
    fxkd.prepare(student, teacher, spec, example_inputs=given)


# Against values by hand


def attention(feature: Tensor) -> Tensor:
    return F.normalize(feature.square().mean(1).flatten(1), dim=1)


def test_attention_transfer_by_hand() -> None:
    layers = "layer1", "layer2", "layer3", "layer4"
    spec = recipes.attention_transfer(small(), big(), images(), weight=[1, 2, 3, 4])
    out, _ = step(prepared(spec, small(), big()))
    pairs = zip(hooked(small(), *layers, train=True), hooked(big(), *layers, train=False), strict=True)
    expected = [
        index * (attention(one) - attention(other)).square().mean() for index, (one, other) in enumerate(pairs, 1)
    ]
    assert_same(list(out.losses.values()), expected, 1e-4)
    assert list(out.losses) == [f"loss_{layer}" for layer in layers]


def test_logits_by_hand() -> None:
    student, teacher = small(), big()
    spec = recipes.logits(student, teacher, images(), temperature=4, weight=2, labels="labels")
    out, _ = step(prepared(spec, student, teacher))
    (mine,), (theirs,) = hooked(small(), "fc", train=True), hooked(big(), "fc", train=False)
    soft = 2 * 16 * F.kl_div((mine / 4).log_softmax(1), (theirs / 4).softmax(1), reduction="batchmean")
    own = F.cross_entropy(mine, EXTRA["labels"])
    assert_same([out.losses["loss_logits"], out.student_loss, out.loss], [soft, own, soft + own], 1e-4)
    expected = small()
    (mine,) = hooked(expected, "fc", train=True)
    soft = 2 * 16 * F.kl_div((mine / 4).log_softmax(1), (theirs / 4).softmax(1), reduction="batchmean")
    (soft + F.cross_entropy(mine, EXTRA["labels"])).backward()
    for (place, parameter), other in zip(student.named_parameters(), expected.parameters(), strict=True):
        assert_same(parameter.grad, other.grad, 1e-3, atol=1e-5, path=place)


def test_distances_by_hand() -> None:
    spec = recipes.rkd(small(), big(), images(), angle_weight=0, distance_weight=2)
    out, _ = step(prepared(spec, small(), big()))

    def distances(feature: Tensor) -> Tensor:
        apart = torch.cdist(*[F.normalize(feature, dim=1)] * 2)
        return apart / (apart.sum() / 12)

    (mine,), (theirs,) = hooked(small(), "global_pool", train=True), hooked(big(), "global_pool", train=False)
    assert_same(out.losses, {"loss_distance": 2 * F.smooth_l1_loss(distances(mine), distances(theirs))}, 1e-3)


# The whole spec


def module(source: str, kind: str = "ModuleOutputs") -> dict[str, str]:
    return {"type": kind, "source": source}


def test_the_spec_of_fitnet() -> None:
    def conv(given: int, wanted: int) -> dict[str, Any]:
        channels = {"type": "ConvModuleConnector", "in_channel": given, "out_channel": wanted}
        return {**channels, "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU"}}

    def mapping(name: str) -> dict[str, Any]:
        student = {"recorder": name, "from_student": True, "connector": f"loss_{name}_student"}
        return {"s_feature": student, "t_feature": {"recorder": name, "from_student": False}}

    recorders = {name: module(name) for name in ("layer3", "layer4", "fc")}
    hint = {"type": "L2Loss", "loss_weight": 10.0}
    soft = {"type": "KLDivergence", "tau": 6.0, "reduction": "mean", "loss_weight": 10.0}
    logits = [{"recorder": "fc", "from_student": of_student} for of_student in (True, False)]
    assert recipes.fitnet(small(), big(), images()).to_dict() == {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {"loss_layer3_student": conv(16, 32), "loss_layer4_student": conv(32, 64)},
        "distill_losses": {"loss_layer3": hint, "loss_layer4": hint, "loss_logits": soft},
        "loss_forward_mappings": {
            "loss_layer3": mapping("layer3"),
            "loss_layer4": mapping("layer4"),
            "loss_logits": {"preds_S": logits[0], "preds_T": logits[1]},
        },
    }


def test_the_weights_of_ofd_and_ab_halve_from_the_last_stage() -> None:
    for spec in (recipes.ofd(small(), big(), images()), recipes.ab(small(), big(), images(), stage="pretrain")):
        assert [loss["loss_weight"] for loss in spec.distill_losses.values()] == [0.125, 0.25, 0.5, 1.0]
        assert sources(spec.student_recorders) == [f"layer{stage}.0.bn2" for stage in (1, 2, 3, 4)]
        assert sources(spec.teacher_recorders) == [f"layer{stage}.0.bn3" for stage in (1, 2, 3, 4)]
        assert {spec.connectors[f"loss_layer{stage}_0_bn2_student"]["act_cfg"] for stage in (1, 2, 3, 4)} == {None}


def test_margins_come_from_the_teacher() -> None:
    teacher = big()
    distiller = prepared(recipes.ofd(small(), teacher, images(), stages=1), small(), teacher, "eager")
    assert distiller.connectors["loss_layer4_0_bn2_teacher"].margin.shape == (1, 64, 1, 1)


def test_the_branches_of_byot() -> None:
    spec = recipes.byot(small(), None, images())
    assert sources(spec.student_recorders) == ["layer1", "layer2", "layer3"]
    assert [(c["in_channel"], c["out_channel"], c["pool_size"]) for c in spec.connectors.values()] == [
        (4, 32, 2),
        (8, 32, 2),
        (16, 32, 2),
    ]
    assert [name for name in spec.distill_losses if "feature" in name] == ["loss_feature_layer1", "loss_feature_layer2"]
    assert spec.teacher_recorders["feature"].type == "ModuleInputs"
    assert spec.self_distillation


def test_both_stages_of_factor_transfer_have_one_paraphraser() -> None:
    student, teacher = small(), big()
    first, second = (recipes.factor_transfer(student, teacher, images(), stage=s) for s in ("pretrain", "train"))
    trained, then = (prepared(spec, student, teacher, "eager") for spec in (first, second))
    then.connectors["paraphraser"].load_state_dict(trained.connectors["paraphraser"].state_dict())
    assert second.connectors["translator"] == {"type": "Translator", "in_channel": 32, "out_channel": 32}
    named = recipes.factor_transfer(student, teacher, images(), stage="train", pretrained="first.pth")
    assert named.pretrained == "first.pth"
    out, _ = step(trained)
    assert out.output is None


def test_the_specs_of_dafl() -> None:
    of_student, of_generator = recipes.dafl(small(), {"big": big()}, images())
    assert of_student.distill_losses["loss_logits"] == {"type": "KLDivergence", "tau": 6.0, "loss_weight": 1.0}
    assert sources(of_student.teacher_recorders) == ["big.fc"]
    assert (of_student.teacher_gradients, of_student.student_loss) == (False, False)
    assert [loss["loss_weight"] for loss in of_generator.distill_losses.values()] == [0.05, 5.0, 0.01]
    assert {name: (r.type, r.source) for name, r in of_generator.teacher_recorders.items()} == {
        "logits": ("ModuleOutputs", "big.fc"),
        "feature": ("ModuleInputs", "big.fc"),
    }
    assert not of_generator.student_recorders
    _, named = recipes.dafl(small(), {"big": big()}, images(), feature_point="layer4")
    assert named.teacher_recorders["feature"].source == "big.layer4"


def test_the_generator_of_zskt_works_against_the_student() -> None:
    of_student, of_generator = recipes.zskt(small(), big(), images(), stages=2)
    assert list(of_student.distill_losses) == ["loss_layer3", "loss_layer4", "loss_logits"]
    against = {"type": "KLDivergence", "tau": 1.0, "reduction": "mean", "loss_weight": -2.0, "teacher_detach": False}
    assert dict(of_generator.distill_losses["loss_logits"]) == against


@pytest.mark.parametrize("name", GENERATES)
def test_a_step_without_data(name: str) -> None:
    student, teacher = Cifar(4), Cifar(6)
    config = {"type": "DAFLGenerator", "img_size": 8, "latent_dim": 3, "hidden_channels": 4}
    specs = recipes.get(name)(student, {"big": teacher}, images(8))
    data_free = fxkd.DataFree(student, {"big": teacher}, config, *specs, example_inputs=images(8), verify=False)
    optimizers = {
        "student": torch.optim.SGD(data_free.student_parameters(), lr=0.1),
        "generator": torch.optim.SGD(data_free.generator_parameters(), lr=0.1),
    }
    before = [p.clone() for p in data_free.generator_parameters()]
    losses = data_free.train_step(4, optimizers)
    assert all(loss.isfinite() for loss in losses.values())
    assert any(not torch.equal(p, old) for p, old in zip(data_free.generator_parameters(), before, strict=True))


def test_what_lad_hands_over() -> None:
    paths = ["fractions.Fraction.limit_denominator", "fractions.Fraction.from_float"]
    spec = recipes.lad(small(), big(), images(), methods=paths, max_keep_data=100)
    assert [(d.type, d.path, d.max_keep_data) for d in spec.distill_deliveries.values()] == [
        ("MethodOutputs", path, 100) for path in paths
    ]
    assert not spec.distill_losses
    assert fxkd.Spec.load(yaml.safe_load(spec.to_yaml())) == spec


# The points that are found

STAGES = {
    "resnet10t": ["layer1", "layer2", "layer3", "layer4"],  # without its stem of three convolutions
    "mobilenetv3_small_050": ["blocks.0", "blocks.1", "blocks.3", "blocks.4"],
    "regnetx_002": ["s1", "s2", "s3", "s4"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2", "stages.3"],
}
NORMS = {
    "resnet10t": [f"layer{stage}.0.bn2" for stage in (1, 2, 3, 4)],  # not that of the shortcut
    "mobilenetv3_small_050": ["blocks.0.0.bn2", "blocks.1.1.bn3", "blocks.3.1.bn3", "blocks.4.2.bn3"],
    "regnetx_002": ["s1.b1.conv3.bn", "s2.b1.conv3.bn", "s3.b4.conv3.bn", "s4.b7.conv3.bn"],
}
HEADS = {
    "resnet10t": ("fc", (4, 512)),
    "mobilenetv3_small_050": ("classifier", (4, 1024)),
    "regnetx_002": ("head.fc", (4, 368)),
    "convnext_atto": ("head.fc", (4, 320)),
}


@pytest.mark.parametrize("name", STAGES)
def test_points_of_known_models(name: str) -> None:
    model, before = net(name, 1), copy.deepcopy(net(name, 1).state_dict())
    other = copy.deepcopy(model)
    assert sources(recipes.attention_transfer(model, other, images()).student_recorders) == STAGES[name]
    if name in NORMS:
        assert sources(recipes.ofd(model, other, images()).teacher_recorders) == NORMS[name]
    head, feature = HEADS[name]
    assert sources(recipes.logits(model, other, images()).student_recorders) == [head]
    spec = recipes.crd(model, other, images(), sample_n=20)
    assert spec.student_recorders[head].type == "ModuleInputs"
    assert spec.connectors["loss_contrast_student"]["dim_in"] == feature[1]
    assert_same(model.state_dict(), before)
    assert model.training
    assert other.training


class Cifar(nn.Module):
    """A network of functions, whose shortcuts have norms too: its first stage has the size of the image."""

    def __init__(self, width: int, end: str = "") -> None:
        super().__init__()
        self.end = end
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.one, self.two = Block(width, width, 1), Block(width, 2 * width, 2)
        self.middle = nn.Linear(2 * width, CLASSES)
        self.head = nn.Conv2d(2 * width, CLASSES, 1) if end == "conv" else nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Any:
        feature = self.two(self.one(F.relu(self.stem(x))))
        if self.end == "maps":
            return {"out": F.interpolate(self.head(feature.movedim(1, -1)).movedim(-1, 1), scale_factor=2)}
        if self.end == "conv":
            return self.head(feature.mean((2, 3), keepdim=True)).flatten(1)
        logits = self.head(feature.mean((2, 3)))
        if self.end == "both":
            return (logits + self.middle(feature.mean((2, 3)))) / 2
        return {"": logits, "log": logits.log_softmax(1), "tuple": (logits, feature)}.get(self.end)


class Block(nn.Module):
    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(given, width, 3, stride, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.short = nn.Sequential(nn.Conv2d(given, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.short(x))


@pytest.mark.parametrize(
    ("end", "source"),
    [("", "head"), ("log", "head"), ("tuple", "head"), ("conv", ""), ("maps", "")],
)
def test_logits_however_a_model_ends(end: str, source: str) -> None:
    if end == "maps":
        with pytest.raises(SpecError, match=r"student_point: the student \(Cifar\) returns no logits"):
            recipes.logits(Cifar(4, end), Cifar(6, end), images(8))
        return
    spec = recipes.logits(Cifar(4, end), Cifar(6, end), images(8))
    assert sources(spec.student_recorders) == sources(spec.teacher_recorders) == [source]
    distiller = fxkd.prepare(Cifar(4, end), Cifar(6, end), spec, example_inputs=images(8), verify=False)
    distiller(images(8)).loss.backward()


def test_stages_and_norms_of_a_model_of_functions() -> None:
    spec = recipes.attention_transfer(Cifar(4), Cifar(6), images(8))
    assert sources(spec.student_recorders) == ["one", "two"]
    spec = recipes.ofd(Cifar(4), Cifar(6), images(8))
    assert sources(spec.student_recorders) == ["one.norm2", "two.norm2"]
    assert sources(recipes.rkd(Cifar(4), Cifar(6), images(8)).student_recorders) == ["head"]


def test_stages_of_a_flat_chain() -> None:
    def chain(width: int) -> nn.Sequential:
        convs = [nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()]
        return nn.Sequential(*convs, nn.Flatten(), nn.Linear(width * 4, 3))

    assert sources(recipes.cwd(chain(2), chain(4), images(8)).student_recorders) == ["1", "3"]


def test_a_module_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.fc(x))
            return logits

    model, x = Twice(), torch.randn(4, 3)
    spec = recipes.logits(model, Twice(), x)
    assert spec.loss_forward_mappings["loss_logits"]["preds_S"].record_idx == 1
    out = fxkd.prepare(model, Twice().eval(), spec, example_inputs=x)(x)
    assert out.losses["loss_logits"] > 0


def test_a_student_that_takes_its_labels_and_gives_its_loss() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.fc(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    given = {"x": torch.randn(4, 3), "labels": torch.tensor([0, 1, 2, 3])}
    spec = recipes.dkd(Own(), Own(), given)
    assert (spec.inputs, spec.student_loss) == ((), "auto")
    out = fxkd.prepare(Own(), Own(), spec, example_inputs=given)(**given)
    assert out.student_loss is not None
    assert out.losses["loss_logits"] > 0


# Points that are given


def test_given_points() -> None:
    points = [("layer2", "layer3"), ({"source": "layer4.0.bn2", "type": "ModuleInputs", "data_idx": 0}, "layer3")]
    spec = recipes.fitnet(small(), big(), images(), points=points, weight=[1, 2], logits_weight=0)
    assert list(spec.distill_losses) == ["loss_layer2", "loss_layer4_0_bn2_0"]
    (resize, conv), (larger, _) = spec.connectors.values()
    assert resize == {"type": "ResizeConnector", "size": [4, 4], "mode": "pool"}
    assert (conv["in_channel"], conv["out_channel"]) == (8, 32)
    assert larger == {"type": "ResizeConnector", "size": [4, 4]}
    step(prepared(spec, small(), big(), "eager"))


def test_points_of_tokens_and_maps() -> None:
    student = net("vit_tiny_patch16_224", 1, img_size=64, depth=2, embed_dim=24, num_heads=2)
    points = [("blocks.0", "layer3"), ("blocks.1", "layer4")]
    spec = recipes.fitnet(student, big(), images(), points=points)
    tokens, conv = spec.connectors["loss_blocks_0_student"]
    assert tokens == {"type": "TokensToMapConnector", "height": 4, "width": 4, "prefix_tokens": 1}
    assert conv == {"type": "ConvModuleConnector", "in_channel": 24, "out_channel": 32, "act_cfg": None}
    out, _ = step(prepared(spec, student, big(), "eager"))
    assert list(out.losses) == ["loss_blocks_0", "loss_blocks_1", "loss_logits"]
    assert sources(recipes.rkd(student, big(), images()).student_recorders) == ["head"]


def test_a_vit_without_points() -> None:
    student = net("vit_tiny_patch16_224", 1, img_size=64, depth=1, embed_dim=24, num_heads=2)
    what = r"no feature maps of one size in common \(student: none; teacher: 'layer1' \(stride 4\), .*pass points=\[\("
    with pytest.raises(SpecError, match=what):
        recipes.attention_transfer(student, big(), images())


class Neck(nn.Module):
    """Several maps of one width, as a feature pyramid gives them."""

    def __init__(self, width: int, levels: int = 2) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Conv2d(3 if not i else width, width, 3, 2, 1) for i in range(levels))
        self.neck = Pyramid(width, levels)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for layer in self.body:
            x = layer(x).relu()
            found.append(x)
        return sum(map(torch.sum, self.neck(found)), start=x.new_zeros(()))


class Pyramid(nn.Module):
    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, 8, 1) for _ in range(levels))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(conv(one) for conv, one in zip(self.convs, maps, strict=True))


@pytest.mark.parametrize("name", ["cwd", "pkd", "mgd", "fbkd"])
def test_two_necks_are_compared_level_by_level(name: str) -> None:
    student, teacher = Neck(4), Neck(6)
    spec = recipes.get(name)(student, teacher, images(16), points=[("neck", "neck")])
    assert list(spec.distill_losses) == ["loss_neck_0", "loss_neck_1"]
    assert list(spec.student_recorders) == ["neck"]
    out = fxkd.prepare(student, teacher, spec, example_inputs=images(16), verify=False)(images(16))
    out.loss.backward()
    assert all(loss > 0 for loss in out.losses.values())


def test_necks_of_other_lengths_are_not() -> None:
    with pytest.raises(SpecError, match=r"points: 'neck' gives no one tensor that is known beforehand; this recipe"):
        recipes.cwd(Neck(4), Neck(6, 3), images(16), points=[("neck", "neck")])


def test_functions_are_sized_by_auto() -> None:
    point = {"type": "FunctionOutputs", "source": "torch.nn.functional.relu"}
    spec = recipes.fitnet(Cifar(4), Cifar(6), images(8), points=[(point, point)], logits_weight=0)
    assert list(spec.connectors.values()) == ["auto"]


def test_large_maps_are_pooled_inside_fbkd() -> None:
    spec = recipes.fbkd(Neck(8), Neck(8), images(64), points=[("neck", "neck")], positions=16)
    one, other = (spec.connectors[f"loss_neck_{level}_teacher"] for level in (0, 1))
    assert one == {
        "type": "FBKDTeacherConnector",
        "in_channels": 8,
        "reduction": 4,
        "sub_sample": True,
        "maxpool_stride": 2,
        "compat": False,
    }
    assert "sub_sample" not in other


def patches() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(16, 3))


# What cannot be

BAD: dict[str, tuple[Callable[[nn.Module, nn.Module], Any], str]] = {
    "no student": (lambda s, t: recipes.logits(nn.Linear, t, images()), "student: is the class Linear and no object"),
    "no teacher": (lambda s, t: recipes.logits(s, 3, images()), "teacher: is a int; give an nn.Module"),
    "two teachers": (
        lambda s, t: recipes.logits(s, {"a": t, "b": t}, images()),
        r"teacher: there are several \('a', 'b'\), and a recipe is for one",
    ),
    "other classes": (
        lambda s, t: recipes.logits(s, nn.Sequential(t, nn.Linear(CLASSES, 3)), images()),
        r"student_point: 'fc' gives \(4, 7\) and the teacher's '1' gives \(4, 3\)",
    ),
    "no logits": (
        lambda s, t: recipes.logits(Neck(4), t, images()),
        r"student_point: the student \(Neck\) returns no logits \(N, C\)",
    ),
    "no feature": (lambda s, t: recipes.rkd(s, Neck(4), images()), r"teacher_point: the teacher \(Neck\) has no layer"),
    "misspelt": (
        lambda s, t: recipes.logits(s, t, images(), teacher_point="fcc"),
        r"teacher_point: no module 'fcc' in ResNet.*Did you mean 'fc'",
    ),
    "no point": (lambda s, t: recipes.rkd(s, t, images(), student_point=3), "student_point: is 3; give a path such as"),
    "a strange key": (
        lambda s, t: recipes.rkd(s, t, images(), student_point={"source": "fc", "idx": 0}),
        r"student_point: has the key 'idx'; a point has 'type', 'source', 'record_idx', 'data_idx'",
    ),
    "a strange type": (
        lambda s, t: recipes.rkd(s, t, images(), student_point={"source": "fc", "type": "Outputs"}),
        r"student_point: is of type 'Outputs'",
    ),
    "no such call": (
        lambda s, t: recipes.rkd(s, t, images(), student_point={"source": "fc", "record_idx": 1}),
        r"student_point: 'fc' of the student has no call number 1 on example_inputs",
    ),
    "no such part": (
        lambda s, t: recipes.rkd(s, t, images(), student_point={"source": "fc", "data_idx": 1}),
        r"student_point: data_idx=1, but the record is one \w*Tensor: leave data_idx out",
    ),
    "no list of points": (lambda s, t: recipes.cwd(s, t, images(), points="layer1"), "points: is 'layer1'; give a li"),
    "no pairs": (lambda s, t: recipes.cwd(s, t, images(), points=["ab"]), r"points: is \['ab'\]; give a list of pairs"),
    "a misspelt pair": (
        lambda s, t: recipes.cwd(s, t, images(), points=[("layer1", "layer1"), ("layer2", "layer9")]),
        r"points\[1\], teacher: no module 'layer9' in ResNet",
    ),
    "logits as maps": (
        lambda s, t: recipes.cwd(s, t, images(), points=[("fc", "fc")]),
        r"points: 'fc' gives \(4, 7\); this recipe needs feature maps",
    ),
    "what nothing fits": (
        lambda s, t: recipes.fitnet(s, t, images(), points=[("fc", "layer1")]),
        r"points: 'fc' and 'layer1': 'auto' cannot make \(4, 7\) fit \(4, 16, 16, 16\)",
    ),
    "no number of stages": (lambda s, t: recipes.fitnet(s, t, images(), stages=0), "stages: is 0; give how many of"),
    "too many stages": (
        lambda s, t: recipes.fitnet(s, t, images(), stages=9),
        r"stages: is 9, and the models have 4 of one size in common; pass points=\[",
    ),
    "weights": (
        lambda s, t: recipes.pkd(s, t, images(), weight=[1, 2]),
        "weight: has 2 numbers for 4 pairs of points; give as many, or one",
    ),
    "no norms": (
        lambda s, t: recipes.ofd(s, net("convnext_atto", 1), images()),
        r"points: the models have no stages that end in a BatchNorm2d .*'stages.0' \(stride 4\)",
    ),
    "a norm of another kind": (
        lambda s, t: prepared(recipes.ofd(s, t, images(), points=[("layer1.0.bn1", "layer1")]), s, t, "eager"),
        "its margin comes from a BatchNorm2d or a SyncBatchNorm, not from a Sequential",
    ),
    "a stage of ab": (
        lambda s, t: recipes.ab(s, t, images(), stage="pretrian"),
        "stage: is 'pretrian'; it can be 'pretrain', 'logits'. Did you mean 'pretrain'",
    ),
    "a stage of factors": (
        lambda s, t: recipes.factor_transfer(s, t, images(), stage="logits"),
        "stage: is 'logits'; it can be 'pretrain', 'train'",
    ),
    "a rate": (
        lambda s, t: recipes.factor_transfer(s, t, images(), stage="train", rate=0),
        "rate: is 0; give what 64 channels times it are those of a code, at least 1",
    ),
    "one point of two": (
        lambda s, t: recipes.factor_transfer(s, t, images(), stage="train", student_point="layer4"),
        "teacher_point: is missing, and student_point is given; give both, or none",
    ),
    "nothing to compare": (
        lambda s, t: recipes.rkd(s, t, images(), distance_weight=0, angle_weight=0),
        "distance_weight: is 0, and so is angle_weight",
    ),
    "tokens for crd": (
        lambda s, t: recipes.crd(s, t, images(), sample_n=9, student_point={"type": "ModuleInputs", "source": "fc"}),
        r"points: 'fc' gives no one tensor that is known beforehand; crd needs a feature",
    ),
    "labels": (lambda s, t: recipes.dkd(s, t, images(), labels=3), "labels: is 3; give the name of the argument"),
    "no labels": (lambda s, t: recipes.byot(s, None, images(), labels=None), "labels: is None; give the name"),
    "maps for dkd": (
        lambda s, t: recipes.dkd(s, t, images(), student_point="layer4.0.conv2", teacher_point="layer4.0.conv3"),
        r"student_point: 'layer4.0.conv2' gives",
    ),
    "a teacher of oneself": (lambda s, t: recipes.byot(s, t, images()), "teacher: is given, and in byot the student"),
    "no branches": (lambda s, t: recipes.byot(s, None, images(), points=[]), r"points: is \[\]; give a list of points"),
    "one stage": (
        lambda s, t: recipes.byot(
            nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(16, 3)), None, images(8)
        ),
        "points: the student has one stage, and byot needs more",
    ),
    "widths": (
        lambda s, t: recipes.byot(net("resnet18", 1, layers=(1, 1, 1, 1), channels=(4, 6, 8, 8)), None, images()),
        r"points: 'layer2' gives \(4, 6, 8, 8\), and the last feature is \(4, 8\); a branch doubles",
    ),
    "positions": (lambda s, t: recipes.fbkd(s, t, images(), positions=0), "positions: is 0; give a whole number"),
    "no methods": (lambda s, t: recipes.lad(s, t, methods="a.b.c"), "methods: is 'a.b.c'; give a list of paths"),
    "no such method": (
        lambda s, t: recipes.lad(s, t, methods=["fractions.Fraction.limit", "nothing"]),
        r"2 problems:\n  - methods\[0\]: 'fractions.Fraction.limit': .*\n  - methods\[1\]: 'nothing' is not a path",
    ),
    "a strange recipe": (lambda s, t: recipes.get("fitnets"), "no recipe is called 'fitnets'; .*Did you mean 'fitnet'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(SpecError, match=message):
        make(small(), big())


# Recipes of one's own


@fxkd.recipe("of_tests")
def of_tests(student: nn.Module, teacher: nn.Module, example_inputs: Any, weight: float = 1.0) -> fxkd.Spec:
    return recipes.logits(student, teacher, example_inputs, weight=weight)


def test_a_recipe_of_ones_own() -> None:
    assert "of_tests" in recipes.names()
    assert recipes.names() == sorted(recipes.names())
    spec = recipes.get("of_tests")(Cifar(2), Cifar(3), images(8), weight=2)
    assert spec.distill_losses["loss_logits"]["loss_weight"] == 2
    fxkd.recipe("of_tests")(of_tests)  # a second time, as a cell of a notebook is


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (
            lambda: fxkd.recipe("logits")(test_a_recipe_of_ones_own),
            "the recipe 'logits' is fxkd.recipes.response",
        ),
        (lambda: fxkd.recipe("of_tests")(images), "the recipe 'of_tests' is .*of_tests already; take another name"),
        (lambda: fxkd.recipe(of_tests), "@fxkd.recipe takes the name of the recipe"),
        (lambda: fxkd.recipe(""), "@fxkd.recipe takes the name of the recipe"),
        (lambda: fxkd.recipe("five")(5), r"@fxkd.recipe\('five'\) decorates a function that returns a spec, not 5"),
    ],
)
def test_names_that_cannot_be_taken(register: Callable[[], Any], message: str) -> None:
    before = recipes.names()
    with pytest.raises(SpecError, match=message):
        register()
    assert recipes.names() == before


# Pairs of other families, end to end

PAIRS = [("mobilenetv3_small_050", "resnet10t"), ("regnetx_002", "convnext_atto"), ("convnext_atto", "regnetx_002")]


NAMES = ["logits", "fitnet", "attention_transfer", "rkd", "cwd", "pkd", "mgd", "fbkd", "ofd"]
WITH_NORMS = [pair for pair in PAIRS if "convnext_atto" not in pair]  # an overhaul takes batch normalisations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pair"), [(name, pair) for name in NAMES for pair in (WITH_NORMS if name == "ofd" else PAIRS)]
)
def test_other_pairs(name: str, pair: tuple[str, str]) -> None:
    student, teacher = (net(one, index) for index, one in enumerate(pair))
    spec = recipes.get(name)(student, teacher, images())
    out, _ = step(prepared(spec, student, teacher))
    assert all(loss.isfinite() and loss != 0 for loss in out.losses.values())
