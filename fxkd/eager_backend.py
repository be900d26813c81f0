"""Run the same spec without a graph: patches and hooks around the models' own forward, in place only while they run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.eager import DistillDeliveryManager, ParameterRecorder, RecorderManager
from fxkd.passes.insert_losses import add_losses, mean_of, returned_losses
from fxkd.spec import Delivery, Recorder, Reference, Spec, StudentLoss
from fxkd.spec.vocabulary import DELIVERIES


class EagerBackend:
    """The reference semantics: teacher, then student, then losses, as a person would write them.

    Args:
        student: Runs second, with gradients; its deliveries are overridden.
        teacher: Runs first, without gradients.
        modules: ``connectors``, ``losses`` and ``student_loss``.
        spec: What to record, deliver and compare.
        clone_records: Whether a record holds the value at its point (True) or what later becomes of it.
        return_records: Whether records are part of the result.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        modules: Mapping[str, Any],
        spec: Spec,
        clone_records: bool,
        return_records: bool,
    ) -> None:
        self.student, self.teacher, self.modules, self.spec = student, teacher, modules, spec
        self.clone_records, self.return_records = clone_records, return_records

    def step(self, args: tuple[Any, ...], kwargs: dict[str, Any], extra: dict[str, Tensor]) -> dict[str, Any]:
        """Run the models, the losses and all between on one call."""
        deliveries = DistillDeliveryManager(_delivery_configs(self.spec.distill_deliveries))
        for delivery in deliveries.deliveries.values():
            delivery.clone = self.clone_records
        with torch.no_grad():
            of_teacher = self._recorders(self.spec.teacher_recorders, "teacher_recorders")
            self._run(self.teacher, of_teacher, deliveries, args, kwargs)
        deliveries.override_data = True
        of_student = self._recorders(self.spec.student_recorders, "student_recorders")
        output = self._run(self.student, of_student, deliveries, args, kwargs)
        return self._result(output, {True: of_student, False: of_teacher}, kwargs | extra)

    def _recorders(self, recorders: Mapping[str, Recorder], where: str) -> RecorderManager:
        configs = {name: {"type": recorder.type, "source": recorder.source} for name, recorder in recorders.items()}
        manager = RecorderManager(configs, where=where)
        for recorder in manager.recorders.values():
            recorder.clone = self.clone_records and not isinstance(recorder, ParameterRecorder)
        return manager

    def _run(
        self,
        model: nn.Module,
        recorders: RecorderManager,
        deliveries: DistillDeliveryManager,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        recorders.initialize(model)
        deliveries.initialize(model)
        with recorders, deliveries, _uncompiled():
            return model(*args, **kwargs)

    def _result(self, output: Any, recorders: dict[bool, RecorderManager], given: dict[str, Any]) -> dict[str, Any]:
        losses = {}
        for name, mapping in self.spec.loss_forward_mappings.items():
            arguments = {argument: self._value(ref, recorders, given) for argument, ref in mapping.items()}
            losses[name] = mean_of(self.modules["losses"][name](**arguments))
        own = self._own_loss(output, given)
        trained = [loss for name, loss in losses.items() if "loss" in name]
        distilled = [add_losses(trained)] if trained else []
        total = [*([own] if own is not None else []), *distilled]
        return {
            "loss": add_losses(total) if total else None,
            "student_loss": own,
            "losses": losses,
            "output": output if self.spec.return_output else None,
            "records": _records(recorders) if self.return_records else {},
        }

    def _value(self, reference: Reference, recorders: dict[bool, RecorderManager], given: dict[str, Any]) -> Any:
        if reference.from_input is not None:
            return given[reference.from_input]
        recorder = recorders[bool(reference.from_student)].get_recorder(str(reference.recorder))
        value = recorder.get_record_data(reference.record_idx, reference.data_idx)
        if reference.connector is not None:
            value = self.modules["connectors"][reference.connector](value)
        return value if reference.connector_idx is None else value[reference.connector_idx]

    def _own_loss(self, output: Any, given: dict[str, Any]) -> Any:
        own = self.spec.student_loss
        if isinstance(own, StudentLoss):
            args = {name: output if v == "from_output" else given[v["from_input"]] for name, v in own.args.items()}
            return self.modules["student_loss"](**args) * own.weight
        found = [mean_of(value) for value in returned_losses(output).values()] if own else []
        return add_losses(found) if found else None


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Let parts of a model that are compiled run as they are: compiled code does not see new hooks and patches."""
    try:
        stance = torch.compiler.set_stance("force_eager")
    except RuntimeError:  # the caller himself is being compiled, hooks and all
        yield
        return
    with stance:
        yield


def _records(recorders: dict[bool, RecorderManager]) -> dict[str, dict[str, list[Any]]]:
    return {
        side: {name: recorder.data_buffer for name, recorder in recorders[is_student].recorders.items()}
        for side, is_student in (("student", True), ("teacher", False))
    }


def _delivery_configs(deliveries: Mapping[str, Delivery]) -> dict[str, dict[str, Any]]:
    return {
        name: {"type": d.type, DELIVERIES[d.type]: d.path, "max_keep_data": d.max_keep_data}
        for name, d in deliveries.items()
    }
