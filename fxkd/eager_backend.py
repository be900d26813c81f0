"""Run the same spec without a graph: patches and hooks around the models' own forward, in place only while they run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from fxkd.capture import Inputs, Layout, split
from fxkd.capture.blame import refuse_call
from fxkd.eager import DistillDeliveryManager, ModuleGradientsRecorder, ParameterRecorder, RecorderManager
from fxkd.eager.picking import picked
from fxkd.errors import CaptureError, PointError, SpecError
from fxkd.passes.insert_losses import NONE, add_losses, mean_of, no_argument, returned_losses
from fxkd.patcher import patched
from fxkd.spec import Delivery, Recorder, Reference, Spec, StudentLoss
from fxkd.spec.vocabulary import DELIVERIES
from fxkd.teachers import Teachers


class EagerBackend:
    """The reference semantics: teacher, then student, then losses, as a person would write them.

    Args:
        student: Runs second, unless it delivers to the teacher; the second takes what the first gives.
        teacher: Runs if the spec asks anything of it, without gradients unless it is to have them; None if the
            student is its own.
        modules: ``connectors``, ``losses`` and ``student_loss``.
        spec: What to record, deliver and compare.
        clone_records: Whether a record holds the value at its point (True) or what later becomes of it.
        return_records: Whether records are part of the result.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
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
            delivery.is_cut = self.spec.cuts_deliveries and not self.spec.student_first
        of_teacher = self._recorders(self.spec.teacher_recorders, "teacher_recorders")
        of_student = self._recorders(self.spec.student_recorders, "student_recorders")
        runs: list[Any] = [(self.student, (of_student,), self.spec.student_trainable)]
        if self.spec.self_distillation:
            runs = [(self.student, (of_student, of_teacher), self.spec.student_trainable)]
        elif self.teacher is not None and self.spec.reads_teacher:
            runs.insert(len(runs) * self.spec.student_first, (self.teacher, (of_teacher,), self.spec.teacher_grad))
        outputs: dict[nn.Module | None, Any] = {}
        for model, recorders, trains in runs:
            with _gradients(trains):
                outputs[model] = self._run(model, recorders, deliveries, args, kwargs)
            deliveries.override_data = True
        given = Given(self.student, args, kwargs, extra)
        records, taught = {True: of_student, False: of_teacher}, outputs.get(self.teacher)
        return self._result(outputs[self.student], taught, records, given)

    def _recorders(self, recorders: Mapping[str, Recorder], where: str) -> RecorderManager:
        configs = {name: {"type": recorder.type, "source": recorder.source} for name, recorder in recorders.items()}
        manager = RecorderManager(configs, where=where)
        for recorder in manager.recorders.values():
            recorder.clone = self.clone_records and not isinstance(recorder, ParameterRecorder)
        return manager

    def _run(
        self,
        model: nn.Module,
        managers: tuple[RecorderManager, ...],
        deliveries: DistillDeliveryManager,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not torch.compiler.is_compiling():
            refuse_call("student" if model is self.student else "teacher", model, Inputs(args, kwargs))
        deliveries.initialize(model)
        with ExitStack() as stack:
            for recorders in managers:
                recorders.initialize(model)
                stack.enter_context(recorders)
                stack.enter_context(_no_record_without_gradients(recorders))
            with deliveries, _uncompiled():
                return model(*args, **kwargs)

    def _result(
        self, output: Any, taught: Any, recorders: dict[bool, RecorderManager], given: "Given"
    ) -> dict[str, Any]:
        own = self._own_loss(output, given)
        needed = self.spec.returns_teacher
        of_teacher = self._loss_of_teachers(taught, given) if needed else None
        self._compute_gradients(recorders, {True: own, False: own if self.spec.self_distillation else of_teacher})
        losses = {}
        for name, mapping in self.spec.loss_forward_mappings.items():
            arguments = {
                argument: self._value(ref, recorders, given, f"loss_forward_mappings.{name}.{argument}")
                for argument, ref in mapping.items()
            }
            losses[name] = mean_of(self.modules["losses"][name](**arguments), f"distill_losses.{name}")
        of_teacher = of_teacher if self.spec.teacher_trainable else None
        trained = [loss for name, loss in losses.items() if "loss" in name]
        distilled = [add_losses(trained)] if trained else []
        total = [*(loss for loss in (own, of_teacher) if loss is not None), *distilled]
        extra = {"teacher_loss": of_teacher} if self.spec.teacher_trainable else {}
        return extra | {
            "loss": add_losses(total) if total else None,
            "student_loss": own,
            "losses": losses,
            "output": output if self.spec.return_output else None,
            "records": _records(recorders) if self.return_records else {},
        }

    def _compute_gradients(self, recorders: dict[bool, RecorderManager], own: dict[bool, Any]) -> None:
        """Take the gradients that are recorded, now that there is a loss of the model's own."""
        for is_student, manager in recorders.items():
            for name, recorder in manager.recorders.items():
                if not isinstance(recorder, ModuleGradientsRecorder):
                    continue
                loss = own[is_student]
                if loss is None:
                    what = f"a gradient is that of the model's own loss, and {NONE}"
                    raise SpecError([f"{manager.where}.{name}: {what}"])
                trains = is_student or self.spec.teacher_trainable or self.spec.self_distillation
                recorder.compute(loss, keep=trains)

    def _value(self, reference: Reference, recorders: dict[bool, RecorderManager], given: "Given", where: str) -> Any:
        if reference.from_input is not None:
            return given.named(reference.from_input, where)
        return picked(reference, recorders[bool(reference.from_student)], self.modules["connectors"], where)

    def _loss_of_teachers(self, taught: Any, given: "Given") -> Any:
        """Give the own loss of the teacher; of several the sum."""
        each = taught.values() if isinstance(self.teacher, Teachers) else (taught,)
        found = [self._own_loss(output, given, always=True) for output in each]
        losses = [loss for loss in found if loss is not None]
        return add_losses(losses) if losses else None

    def _own_loss(self, output: Any, given: "Given", *, always: bool = False) -> Any:
        own = self.spec.student_loss
        if isinstance(own, StudentLoss):
            args = {
                name: output if v == "from_output" else given.named(v["from_input"], f"student_loss.args.{name}")
                for name, v in own.args.items()
            }
            return mean_of(self.modules["student_loss"](**args), "student_loss")
        found = [mean_of(value) for value in returned_losses(output).values()] if own or always else []
        return add_losses(found) if found else None


def _gradients(wanted: bool) -> AbstractContextManager[Any]:
    """Turn gradients off unless they are wanted; where they are off they stay off."""
    return nullcontext() if wanted else torch.no_grad()


@contextmanager
def _no_record_without_gradients(recorders: RecorderManager) -> Iterator[None]:
    """Refuse a point inside reentrant checkpointing: it runs without gradients, so its loss would train nothing."""
    buffers = {str(recorder): recorder for recorder in recorders.recorders.values()}

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(*args: Any) -> Any:
            before = {name: len(recorder.data_buffer) for name, recorder in buffers.items()}
            value = original(*args)
            inside = [name for name, recorder in buffers.items() if len(recorder.data_buffer) != before[name]]
            if inside and torch.is_grad_enabled():
                raise CaptureError(
                    f"{inside[0]} is called inside reentrant checkpointing, which runs it without gradients: name "
                    "another point, or make checkpointing non-reentrant (use_reentrant=False)"
                )
            return value

        return apply

    with patched(CheckpointFunction, "apply", wrap):
        yield


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


class Given:
    """The arguments of a call by name, as the joint graph names them."""

    def __init__(
        self, student: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], extra: dict[str, Tensor]
    ) -> None:
        self.student, self.inputs, self.extra = student, Inputs(args, kwargs), extra

    def named(self, name: str, where: str) -> Any:
        """Give one argument; a tensor given by position, or inside a dict or list, has a name too.

        Raises:
            PointError: There is none; says which there are.
        """
        given = self.inputs.kwargs | self.extra
        if name in given:
            return given[name]
        tensors = split(self.inputs.args, self.inputs.kwargs)[1]
        given = dict(zip(Layout.of(self.inputs, self.student).names, tensors, strict=True)) | self.extra
        if name in given:
            return given[name]
        raise PointError(no_argument(name, where, given))


def _records(recorders: dict[bool, RecorderManager]) -> dict[str, dict[str, list[Any]]]:
    return {
        side: {name: recorder.data_buffer for name, recorder in recorders[is_student].recorders.items()}
        for side, is_student in (("student", True), ("teacher", False))
    }


def _delivery_configs(deliveries: Mapping[str, Delivery]) -> dict[str, dict[str, Any]]:
    return {
        name: {"type": d.type, DELIVERIES[d.type]: d.path, "max_keep_data": d.max_keep_data}
        | {key: getattr(d, key) for key in ("data_idx", "target") if getattr(d, key) is not None}
        for name, d in deliveries.items()
    }
