"""Classes written for MMRazor or GML: what changes is the line that imports their base and registry."""

import copy
import inspect
from collections.abc import Generator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd import algorithms, registry
from fxkd.compat import (
    ALGORITHMS,
    CONNECTORS,
    HEADS,
    LOSSES,
    MODELS,
    BaseAlgorithm,
    BaseConnector,
    BaseDistillationHead,
    BaseDistiller,
    BaseLoss,
    ConfigurableDistiller,
    build_connector,
    build_loss,
)
from fxkd.compat.modules import distillers
from fxkd.errors import SpecError
from fxkd.spec import Spec


@pytest.fixture(autouse=True)
def registered_for_one_test() -> Generator[None]:
    families = (registry.losses, registry.connectors, distillers)
    for family in families:
        family.names()
    before = [dict(family._classes) for family in families]
    known = dict(algorithms._classes)
    yield
    algorithms._classes.clear()
    algorithms._classes.update(known)
    for family, classes in zip(families, before, strict=True):
        family._classes = classes


class MyLoss(BaseLoss):
    """The loss that GML's tutorial writes."""

    def __init__(self, T: float = 6, reduction: str = "sum", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.t = T
        self.reduction = reduction

    def forward_train(self, s_pred: Tensor, t_pred: Tensor, **kwargs: Any) -> Tensor:
        s = F.log_softmax(s_pred / self.t, dim=1)
        t = F.softmax(t_pred / self.t, dim=1)
        return F.kl_div(s, t, reduction=self.reduction) * (self.t**2) / s_pred.shape[0]


def by_hand(student: Tensor, teacher: Tensor, t: float = 6) -> Tensor:
    p, q = (teacher / t).softmax(1), (student / t).log_softmax(1)
    return (p * (p.log() - q)).sum() * t**2 / len(student)


def test_a_loss_of_gml_in_a_spec() -> None:
    LOSSES.register_module()(MyLoss)
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    loss = {"type": "MyLoss", "loss_weight": 0.05, "T": 2.0}
    spec = {"teacher": [{"distill_cfg": [{"student_module": "", "teacher_module": "", "head": {"loss": loss}}]}]}
    out = fxkd.prepare(student, teacher, spec)(x)
    expected = 0.05 * by_hand(student(x), teacher(x), 2.0)
    torch.testing.assert_close(out.loss, expected)
    (gradient,) = torch.autograd.grad(out.loss, student.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student.weight)[0])


def test_a_loss_is_traced_whole() -> None:
    loss = MyLoss(loss_weight=2.0)
    s, t = torch.randn(4, 3), torch.randn(4, 3)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="eager")(s, t), 2 * by_hand(s, t))


def test_the_arguments_are_those_of_forward_train() -> None:
    class Strict(BaseLoss):
        def forward_train(self, s_pred: Tensor, t_pred: Tensor, mask: Tensor | None = None) -> Tensor:
            return (s_pred - t_pred).abs().mean()

    assert list(inspect.signature(Strict.forward).parameters) == ["self", "s_pred", "t_pred", "mask"]
    LOSSES.register_module()(Strict)
    point = {"x": {"type": "ModuleOutputs", "source": "x"}}
    one = {"recorder": "x", "from_student": True}
    with pytest.raises(SpecError, match=r"preds: the loss takes 's_pred', 't_pred', 'mask'"):
        Spec.load(
            {
                "student_recorders": point,
                "distill_losses": {"loss": {"type": "Strict"}},
                "loss_forward_mappings": {"loss": {"s_pred": one, "preds": one, "t_pred": one}},
            }
        )


def test_weights_are_applied_once() -> None:
    class Inherits(MyLoss):
        pass

    class Overrides(MyLoss):
        def forward_train(self, s_pred: Tensor, t_pred: Tensor, **kwargs: Any) -> Tensor:
            return super().forward_train(s_pred, t_pred) + 1

    class OwnForward(BaseLoss):
        def forward(self, s_pred: Tensor, t_pred: Tensor) -> Tensor:
            return self.loss_weight * (s_pred - t_pred).mean()

    s, t = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(Inherits(loss_weight=3.0)(s, t), 3 * by_hand(s, t))
    torch.testing.assert_close(Overrides(loss_weight=3.0)(s, t), 3 * (by_hand(s, t) + 1))
    torch.testing.assert_close(OwnForward(loss_weight=3.0)(s, t), 3 * (s - t).mean())


def test_models_tells_losses_from_connectors() -> None:
    @MODELS.register_module()
    class Scale(BaseConnector):
        def __init__(self, factor: float = 2.0) -> None:
            super().__init__()
            self.factor = factor

        def forward_train(self, feature: Tensor) -> Tensor:
            return self.factor * feature

    @MODELS.register_module
    class Plain(nn.Module):
        def forward_train(self, feature: Tensor, **kwargs: Any) -> Tensor:
            return feature

    @MODELS.register_module(name="Distance")
    class PlainLoss(nn.Module):
        def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
            return (s_feature - t_feature).abs().mean()

    @MODELS.register_module(name=["Two", "Names"])
    class Second(nn.Module):
        def forward_train(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
            return (s_feature - t_feature).sum()

    ones = torch.ones(2)
    assert build_connector({"type": "mmrazor.Scale", "factor": 3.0})(ones).tolist() == [3, 3]
    assert build_connector([{"type": "Scale"}, {"type": "Plain"}])(ones).tolist() == [2, 2]
    assert build_loss({"type": "Distance"})(ones, 3 * ones).item() == 2
    assert build_loss({"type": "gml.Names"})(ones, 3 * ones).item() == -4
    assert {"Distance", "Two", "Names"} <= set(registry.losses.names())
    assert {"Scale", "Plain"} <= set(registry.connectors.names())


def test_a_head_owns_a_loss_and_a_connector() -> None:
    @CONNECTORS.register_module()
    class Double(BaseConnector):
        def forward_train(self, feature: Tensor) -> Tensor:
            return 2 * feature

    @HEADS.register_module()
    class MyHead(BaseDistillationHead):
        def __init__(self, loss: Any, stu_connector: Any = None, tea_connector: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.loss = build_loss(loss)
            self.stu_connector = build_connector(stu_connector)

        def forward_train(self, s_feat: Tensor, t_feat: Tensor, **kwargs: Any) -> Tensor:
            return self.loss(self.stu_connector(s_feat), t_feat)

    head = {"type": "MyHead", "loss": {"type": "L1Loss"}, "stu_connector": {"type": "Double"}}
    spec = {"teacher": [{"distill_cfg": [{"student_module": "", "teacher_module": "", "head": head}]}]}
    student, teacher = nn.Linear(2, 3), nn.Linear(2, 3)
    x = torch.randn(4, 2)
    torch.testing.assert_close(fxkd.prepare(student, teacher, spec)(x).loss, (2 * student(x) - teacher(x)).abs().mean())


def test_names_are_given_once_unless_forced() -> None:
    class L1Loss(nn.Module):
        def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
            return s_feature.sum() - t_feature.sum()

    told = r"the loss 'L1Loss' is fxkd\.losses\.l1_loss\.L1Loss already: give another name, or force=True"
    with pytest.raises(SpecError, match=told):
        MODELS.register_module()(L1Loss)
    with pytest.raises(SpecError, match=told):
        MODELS.register_module(module=L1Loss)
    assert MODELS.register_module(module=L1Loss, name="MyL1") is L1Loss
    assert MODELS.register_module(force=True)(L1Loss) is L1Loss
    assert registry.losses.get("L1Loss") is registry.losses.get("MyL1") is L1Loss


@pytest.mark.parametrize("family", [MODELS, LOSSES, CONNECTORS, HEADS])
def test_what_is_no_module_is_refused(family: Any) -> None:
    with pytest.raises(SpecError, match=r"decorates a class derived from nn\.Module, not"):
        family.register_module()(lambda feature: feature)


@pytest.mark.parametrize("family", [MODELS, ALGORITHMS])
def test_an_algorithm_is_built_by_its_name(family: Any) -> None:
    @family.register_module()
    class MyAlgorithm(nn.Module):
        def __init__(self, student: nn.Module, use_gt: bool) -> None:
            super().__init__()
            self.student, self.use_gt = student, use_gt

        def train_step(self, data: Any, optimizer: Any) -> dict[str, Tensor]:
            return {"loss": self.student(data).sum() * self.use_gt}

    built = fxkd.build_algorithm({"type": "MyAlgorithm", "use_gt": True}, student=nn.Identity())
    assert isinstance(built, MyAlgorithm)
    assert built.train_step(torch.ones(3), None)["loss"] == 3
    assert "MyAlgorithm" not in registry.losses.names()
    with pytest.raises(SpecError, match="force=True to take its place"):
        family.register_module("MyAlgorithm")(type("Other", (MyAlgorithm,), {"__module__": "elsewhere"}))


def test_an_algorithm_of_two_skeletons_trains_as_a_distiller_of_fxkd_does() -> None:
    """The classes that MMRazor's tutorial leaves empty, with the least in them that makes them train."""

    @MODELS.register_module()
    class MyDistiller(ConfigurableDistiller):
        def compute_distill_losses(self) -> dict[str, Tensor]:
            losses = super().compute_distill_losses()
            return losses | {"twice_loss": 2 * losses["loss"]}

    @ALGORITHMS.register_module()
    class MyDistill(BaseAlgorithm):
        def __init__(self, use_gt: bool, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.use_gt = use_gt

        def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            deliveries = self.distiller.distill_deliveries
            deliveries.override_data = False
            with torch.no_grad(), self.distiller.teacher_recorders, deliveries:
                self.teacher(x)
            deliveries.override_data = True
            with self.distiller.student_recorders, deliveries:
                own = F.cross_entropy(self.architecture(x), y)
            return self.distiller.compute_distill_losses() | ({"own_loss": own} if self.use_gt else {})

    six = six_keys()
    student, teacher, x, y = pair()
    mine = fxkd.build_algorithm(
        {"type": "MyDistill", "use_gt": True, "distiller": {"type": "mmrazor.MyDistiller", **six}},
        student=copy.deepcopy(student),
        teacher=teacher,
    )
    mine.distiller.connectors.load_state_dict({"widen.weight": torch.ones(5, 3), "widen.bias": torch.zeros(5)})
    parameters = [*mine.architecture.parameters(), *mine.distiller.connectors.parameters()]
    losses = mine.train_step({"x": x, "y": y}, torch.optim.SGD(parameters, 0.1))

    own = {"type": "CrossEntropyLoss", "args": {"input": "from_output", "target": {"from_input": "y"}}}
    twice = {**six, "student_loss": own, "inputs": ["y"]}
    twice["distill_losses"] = {"loss": {**six["distill_losses"]["loss"], "loss_weight": 3.0}}
    distiller = fxkd.prepare(student, teacher, twice)
    distiller.connectors.load_state_dict({"widen.weight": torch.ones(5, 3), "widen.bias": torch.zeros(5)})
    optimizer = torch.optim.SGD(distiller.parameters(), 0.1)
    out = distiller(x, y=y)
    out.loss.backward()
    optimizer.step()
    torch.testing.assert_close(losses["loss"] + losses["twice_loss"], out.losses["loss"].detach())
    torch.testing.assert_close(losses["own_loss"], out.student_loss.detach())
    assert_same_parameters(mine.architecture, student)
    assert_same_parameters(mine.distiller.connectors, distiller.connectors)


def six_keys() -> dict[str, Any]:
    point = {"y": {"type": "ModuleOutputs", "source": ""}}
    mapping = {
        "s_feature": {"recorder": "y", "from_student": True, "connector": "widen"},
        "t_feature": {"recorder": "y", "from_student": False},
    }
    return {
        "student_recorders": point,
        "teacher_recorders": point,
        "connectors": {"widen": {"type": "torch.nn.Linear", "in_features": 3, "out_features": 5}},
        "distill_losses": {"loss": {"type": "L1Loss"}},
        "loss_forward_mappings": {"loss": mapping},
    }


def pair() -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(4, 3), nn.Linear(4, 5), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def assert_same_parameters(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_distiller_refuses_what_it_cannot_see() -> None:
    six = six_keys()
    six["loss_forward_mappings"] = {"loss": {"s_feature": six["loss_forward_mappings"]["loss"]["s_feature"]}}
    with pytest.raises(SpecError, match="t_feature"):
        ConfigurableDistiller(**six)
    six["loss_forward_mappings"]["loss"]["t_feature"] = {"from_input": "x"}
    distiller = ConfigurableDistiller(**six)
    student = nn.Linear(4, 3)
    distiller.prepare_from_student(student)
    with distiller.student_recorders:
        student(torch.ones(2, 4))
    with pytest.raises(SpecError, match=r"t_feature: a distiller sees no arguments of a call; use fxkd\.prepare"):
        distiller.compute_distill_losses()


def test_a_base_says_what_is_not_written() -> None:
    with pytest.raises(NotImplementedError, match="writes neither loss"):
        BaseAlgorithm(nn.Identity()).train_step((1,), None)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="writes no compute_distill_losses"):
        BaseDistiller().compute_distill_losses()
    with pytest.raises(SpecError, match=r"BaseAlgorithm: init_cfg is \{'type': 'Xavier'\}"):
        BaseAlgorithm(nn.Identity(), init_cfg={"type": "Xavier"})  # type: ignore[arg-type]


def test_weights_at_the_start_are_the_classes_own() -> None:
    with pytest.raises(SpecError, match=r"BaseConnector: init_cfg is \{'type': 'Xavier'\}; change the weights"):
        BaseConnector(init_cfg={"type": "Xavier"})  # type: ignore[arg-type]
