"""Bases of distillers and algorithms that are written out in Python: recorders around each model's own forward."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn, optim

from fxkd import registry
from fxkd.compat.modules import build_distiller, distillers
from fxkd.eager import DistillDeliveryManager, RecorderManager
from fxkd.eager.picking import picked
from fxkd.errors import SpecError
from fxkd.spec import Spec


class BaseDistiller(nn.Module):
    """Base of distillers: it holds connectors and losses, and ``compute_distill_losses()`` gives the losses by name."""

    def __init__(self, init_cfg: None = None) -> None:
        super().__init__()
        if init_cfg is not None:
            raise SpecError([f"{type(self).__name__}: init_cfg is {init_cfg!r}; change the weights after building"])

    def prepare_from_student(self, model: nn.Module) -> None:
        """Find in the student what is recorded of it."""

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Find in the teacher what is recorded of it."""

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Give the losses of what was recorded."""
        raise NotImplementedError(f"{type(self).__name__} writes no compute_distill_losses()")


@distillers.register("ConfigurableDistiller")
class ConfigurableDistiller(BaseDistiller):
    """A distiller of the six keys of a spec, for classes that override a part of it; else use ``fxkd.prepare``.

    Enter ``teacher_recorders`` and ``distill_deliveries`` around the teacher's forward, set
    ``distill_deliveries.override_data``, enter them and ``student_recorders`` around the student's, and ask for
    ``compute_distill_losses()``.

    Args:
        student_recorders: What to record of the student.
        teacher_recorders: What to record of the teacher.
        distill_deliveries: What the student takes over from the teacher.
        connectors: What values go through on their way to a loss.
        distill_losses: The losses by name.
        loss_forward_mappings: Where each argument of each loss comes from.
        init_cfg: None; anything else is refused.

    Raises:
        SpecError: The six keys do not fit together; one report of all that is wrong.

    >>> import torch
    >>> point, names = {"y": {"type": "ModuleOutputs", "source": ""}}, {"s_feature": True, "t_feature": False}
    >>> mapping = {name: {"recorder": "y", "from_student": side} for name, side in names.items()}
    >>> distiller = ConfigurableDistiller(
    ...     point, point, distill_losses={"loss": {"type": "L1Loss"}}, loss_forward_mappings={"loss": mapping}
    ... )
    >>> student, teacher = nn.Identity(), nn.ReLU()
    >>> distiller.prepare_from_student(student)
    >>> distiller.prepare_from_teacher(teacher)
    >>> with distiller.teacher_recorders, distiller.student_recorders:
    ...     _ = teacher(-torch.ones(2)), student(-torch.ones(2))
    >>> distiller.compute_distill_losses()
    {'loss': tensor(1.)}
    """

    def __init__(
        self,
        student_recorders: Mapping[str, Any] | None = None,
        teacher_recorders: Mapping[str, Any] | None = None,
        distill_deliveries: Mapping[str, Any] | None = None,
        connectors: Mapping[str, Any] | None = None,
        distill_losses: Mapping[str, Any] | None = None,
        loss_forward_mappings: Mapping[str, Any] | None = None,
        init_cfg: None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = {
            "student_recorders": student_recorders,
            "teacher_recorders": teacher_recorders,
            "distill_deliveries": distill_deliveries,
            "connectors": connectors,
            "distill_losses": distill_losses,
            "loss_forward_mappings": loss_forward_mappings,
        }
        spec = Spec.load({key: value for key, value in given.items() if value})
        self.student_recorders = RecorderManager(student_recorders, where="student_recorders")
        self.teacher_recorders = RecorderManager(teacher_recorders, where="teacher_recorders")
        self.distill_deliveries = DistillDeliveryManager(distill_deliveries)
        self.distill_losses = self.build_distill_losses(spec.distill_losses)
        self.connectors = self.build_connectors(spec.connectors)
        self.loss_forward_mappings = spec.loss_forward_mappings

    def build_connectors(self, connectors: Mapping[str, Any]) -> nn.ModuleDict:
        """Build the connectors of their configs."""
        return nn.ModuleDict({name: registry.connectors.build(config) for name, config in connectors.items()})

    def build_distill_losses(self, losses: Mapping[str, Any]) -> nn.ModuleDict:
        """Build the losses of their configs."""
        return nn.ModuleDict({name: registry.losses.build(config) for name, config in losses.items()})

    def prepare_from_student(self, model: nn.Module) -> None:
        """Find in the student what is recorded of it."""
        self.student_recorders.initialize(model)
        self.distill_deliveries.initialize(model)

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Find in the teacher what is recorded of it."""
        self.teacher_recorders.initialize(model)

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Give the losses of what was recorded, in the order of the mappings."""
        return {name: self._loss(name) for name in self.loss_forward_mappings}

    def _loss(self, name: str) -> Tensor:
        sides = {True: self.student_recorders, False: self.teacher_recorders}
        arguments = {}
        for argument, reference in self.loss_forward_mappings[name].items():
            where = f"loss_forward_mappings.{name}.{argument}"
            if reference.from_student is None:
                raise SpecError([f"{where}: a distiller sees no arguments of a call; use fxkd.prepare, or a recorder"])
            arguments[argument] = picked(reference, sides[reference.from_student], self.connectors, where)
        loss: Tensor = self.distill_losses[name](**arguments)
        return loss


class BaseAlgorithm(nn.Module):
    """Base of algorithms: a student (``architecture``), what it learns from, and how one batch trains it.

    A class under it writes ``loss(...)``, which gives losses by name, or ``train_step(data, optimizer)`` itself.
    ``fxkd.build_algorithm`` makes it of its config, the student and the teacher.

    Args:
        architecture: The student.
        distiller: A distiller or its config; its recorders look in ``architecture`` and ``teacher``.
        teacher: What it learns from.
        init_cfg: None; anything else is refused.
    """

    def __init__(
        self,
        architecture: nn.Module,
        distiller: BaseDistiller | Mapping[str, Any] | None = None,
        teacher: nn.Module | None = None,
        init_cfg: None = None,
    ) -> None:
        super().__init__()
        if init_cfg is not None:
            raise SpecError([f"{type(self).__name__}: init_cfg is {init_cfg!r}; change the weights after building"])
        self.architecture, self.teacher = architecture, teacher
        self.distiller = None if distiller is None else build_distiller(distiller)
        if isinstance(self.distiller, BaseDistiller):
            self.distiller.prepare_from_student(architecture)
            if teacher is not None:
                self.distiller.prepare_from_teacher(teacher)

    @classmethod
    def prepare(cls, student: nn.Module, teacher: nn.Module | None = None, **options: Any) -> "BaseAlgorithm":
        """Make it of the models and the options of its config."""
        models: dict[str, Any] = {"architecture": student} | ({} if teacher is None else {"teacher": teacher})
        return cls(**models, **options)

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Give the losses of one batch by name."""
        raise NotImplementedError(f"{type(self).__name__} writes neither loss(...) nor train_step(data, optimizer)")

    def train_step(self, data: Any, optimizer: optim.Optimizer) -> dict[str, Tensor]:
        """Train on one batch: the sum of all whose names hold "loss" goes down one step."""
        losses = self.loss(**data) if isinstance(data, Mapping) else self.loss(*data)
        total = sum(value for name, value in losses.items() if "loss" in name)
        optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}
