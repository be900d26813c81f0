"""Classes written for MMRazor or GML: what changes is the line that imports their base and registry."""

import inspect
from collections.abc import Generator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxkd
from fxkd import registry
from fxkd.compat import (
    ALGORITHMS,
    CONNECTORS,
    DISTILLERS,
    HEADS,
    LOSSES,
    MODELS,
    BaseConnector,
    BaseDistillationHead,
    BaseLoss,
    build_connector,
    build_loss,
)
from fxkd.errors import SpecError, SpecWarning
from fxkd.spec import Spec


@pytest.fixture(autouse=True)
def registered_for_one_test() -> Generator[None]:
    families = (registry.losses, registry.connectors)
    for family in families:
        family.names()
    before = [dict(family._classes) for family in families]
    yield
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


@pytest.mark.parametrize("family", [MODELS, DISTILLERS, ALGORITHMS])
def test_distillers_and_algorithms_are_kept_out(family: Any) -> None:
    class MyAlgorithm(nn.Module):
        def train_step(self, data: Any, optimizer: Any) -> None:
            pass

    with pytest.warns(SpecWarning, match="MyAlgorithm is kept out: fxkd runs distillers and algorithms of its own"):
        assert family.register_module()(MyAlgorithm) is MyAlgorithm
    assert "MyAlgorithm" not in registry.losses.names()


def test_weights_at_the_start_are_the_classes_own() -> None:
    with pytest.raises(SpecError, match=r"BaseConnector: init_cfg is \{'type': 'Xavier'\}; change the weights"):
        BaseConnector(init_cfg={"type": "Xavier"})  # type: ignore[arg-type]
