"""Send the shapes of the records through connectors and losses, and say where they do not fit."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from torch import Tensor, fx, nn

from fxkd.broadcast import Broadcasts
from fxkd.capture import Captured
from fxkd.capture.structure import tensors
from fxkd.checks import point_of
from fxkd.errors import PointError, Problems, did_you_mean
from fxkd.fakes import Mistake, Stage, Unseen
from fxkd.oddities import odd_shapes, odd_training, odd_types, unused_loss
from fxkd.passes.insert_losses import returned_losses
from fxkd.records import pick
from fxkd.spec import Recorder, Reference, Spec, StudentLoss
from fxkd.wording import UNKNOWN, described, pick_hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """What an argument of a loss is given.

    Args:
        reference: Where it comes from.
        record: The part of the record that was picked.
        value: What the connector made of it; without one the same.
    """

    reference: Reference
    record: Any
    value: Any


@dataclass(kw_only=True, slots=True)
class Flow:
    """The values of a distillation without their numbers, and what is wrong or odd about them.

    Args:
        student: The captured student.
        teacher: The captured teacher, if the spec asks anything of it.
        spec: What goes where.
        modules: ``connectors`` and ``losses`` by name, and ``student_loss`` if there is one.
        given: Arguments of the call by name, as far as they are known.
        problems: Where mistakes are noted.
        remarks: What is probably unmeant.
    """

    student: Captured
    teacher: Captured | None
    spec: Spec
    modules: Mapping[str, Any]
    given: Mapping[str, Tensor]
    problems: Problems
    remarks: list[str] = field(default_factory=list)
    stage: Stage = field(default_factory=Stage)
    arguments: dict[str, dict[str, Argument]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> "Flow":
        """Compute every loss, the student's own too."""
        for loss, mapping in self.spec.loss_forward_mappings.items():
            where = f"loss_forward_mappings.{loss}"
            found = {name: self.argument(reference, f"{where}.{name}") for name, reference in mapping.items()}
            self.arguments[loss] = found
            self.results[loss] = self._loss(loss, found, where)
        self._student_loss()
        return self

    # Arguments

    def argument(self, reference: Reference, where: str) -> Argument:
        """Find what a reference gives."""
        record = self._input(reference, where) if reference.from_input is not None else self._record(reference, where)
        value = record if reference.connector is None else self._connected(record, reference, where)
        return Argument(reference=reference, record=record, value=value)

    def _input(self, reference: Reference, where: str) -> Any:
        name = str(reference.from_input)
        if name in self.given:
            return self.stage.fresh(self.given[name], self._device(), grad=False)
        if name not in self.spec.inputs:
            there = ", ".join(map(repr, self.given)) or "none"
            hint = did_you_mean(name, self.given) or f" {_DECLARE}"
            self.problems.add(where, f"no argument {name!r} in the call, which has {there}.{hint}")
        return UNKNOWN

    def _device(self) -> torch.device | None:
        """Give the device of what the student returns: labels go there too."""
        held = tensors(self.student.graph.output_node().meta.get("val"))
        return held[0].device if held else None

    def _record(self, reference: Reference, where: str) -> Any:
        captured = self.student if reference.from_student else self.teacher
        recorders = self.spec.student_recorders if reference.from_student else self.spec.teacher_recorders
        if captured is None:
            return UNKNOWN
        found = reference.of_records(lambda name: self._part(captured, recorders[name], reference, where))
        return UNKNOWN if isinstance(found, tuple) and UNKNOWN in found else found

    def _part(self, captured: Captured, recorder: Recorder, reference: Reference, where: str) -> Any:
        calls = captured.calls(point_of(recorder))
        if not -len(calls) <= reference.record_idx < len(calls):
            return UNKNOWN
        node = calls[reference.record_idx]
        value = node.meta["val"]
        try:
            part = value if reference.data_idx is None else pick(value, reference.data_idx, where)
            trains = None if not _is_behind_function(node) else True
            return self.stage.fresh(part, grad=trains if self._trains(reference) else False)
        except PointError as error:
            self.problems.found.append(str(error))
        except Unseen:
            pass
        return UNKNOWN

    def _trains(self, reference: Reference) -> bool:
        """Tell whether gradients reach the model that a record is of."""
        trains = self.spec.student_trainable if reference.from_student else self.spec.teacher_grad
        return trains and not reference.detach

    def _connected(self, record: Any, reference: Reference, where: str) -> Any:
        connector = self._module("connectors", reference.connector)
        if connector is None or record is UNKNOWN:
            return UNKNOWN
        what = f"the connector {reference.connector!r} does not take {described(record)}"
        value = self._called(connector, (record,), {}, where, what + pick_hint([record]))
        if value is UNKNOWN or reference.connector_idx is None:
            return value
        try:
            return value[reference.connector_idx]
        except (IndexError, KeyError, TypeError):
            self.problems.add(
                f"{where}.connector_idx",
                f"is {reference.connector_idx}, but the connector {reference.connector!r} gives {described(value)}",
            )
            return UNKNOWN

    def _module(self, part: str, name: str | None) -> nn.Module | None:
        return dict(self.modules[part].items()).get(name)

    def _called(self, module: nn.Module, args: Any, kwargs: Any, where: str, what: str) -> Any:
        try:
            return self.stage.call(module, *args, **kwargs)
        except Unseen:
            return UNKNOWN
        except Mistake as mistake:
            self.problems.add(where, f"{what}: {mistake}")
            return UNKNOWN

    # Losses

    def _loss(self, name: str, arguments: Mapping[str, Argument], where: str) -> Any:
        module = self._module("losses", name)
        values = {argument: found.value for argument, found in arguments.items()}
        if module is None or any(value is UNKNOWN for value in values.values()):
            return UNKNOWN
        if self._refused_containers(module, values, where):
            return UNKNOWN
        sides = {
            side: [t for a in arguments.values() if a.reference.from_student is side for t in tensors(a.value)]
            for side in (True, False)
        }
        shapes = " and ".join(f"{argument} is {described(value)}" for argument, value in values.items())
        with Broadcasts(sides[True], sides[False]) as watch:
            result = self._called(module, (), values, where, shapes + _hint(arguments))
        self.remarks += [*odd_shapes(where, watch.found), *odd_types(where, values.values())]
        return self._judged(result, name, sides[True])

    def _refused_containers(self, module: nn.Module, values: Mapping[str, Any], where: str) -> bool:
        """Note arguments that hold several values where the loss says that it takes a tensor."""
        hints = _annotations(module)
        wrong = {name: v for name, v in values.items() if hints.get(name) is Tensor and not isinstance(v, Tensor)}
        for name, value in wrong.items():
            hint = pick_hint([value])
            self.problems.add(f"{where}.{name}", f"is {described(value)}, but the loss takes a tensor{hint}")
        return bool(wrong)

    def _judged(self, result: Any, name: str, of_student: list[Tensor]) -> Any:
        """Check that a loss gives numbers, and that they depend on something that trains."""
        if result is UNKNOWN:
            return result
        where = f"distill_losses.{name}"
        if not _is_loss(result):
            self.problems.add(where, f"gives {described(result)}; a loss gives a tensor, or a list of tensors")
            return UNKNOWN
        self.remarks += odd_training(name, tensors(result), reads_student=bool(of_student))
        return result

    def _student_loss(self) -> None:
        own, output = self.spec.student_loss, self.student.graph.output_node().meta.get("val")
        if not isinstance(own, StudentLoss):
            return
        if returned_losses(output):
            self.remarks.append(unused_loss(returned_losses(output)))
        values = {}
        for name, source in own.args.items():
            where = f"student_loss.args.{name}"
            if source == "from_output":
                with suppress(Unseen):
                    values[name] = self.stage.fresh(output)
            else:
                values[name] = self._input(Reference(from_input=source["from_input"]), where)
        module = self.modules.get("student_loss")
        if module is None or len(values) < len(own.args) or any(value is UNKNOWN for value in values.values()):
            return
        shapes = " and ".join(f"{argument} is {described(value)}" for argument, value in values.items())
        self._called(module, (), values, "student_loss", shapes + pick_hint(values.values()))


_DECLARE = "Give it with the call, or name it in the spec's 'inputs' if it is for the losses alone."


def _is_behind_function(node: fx.Node) -> bool:
    """Tell whether a value comes from a named function, of which the capture does not know whether gradients pass."""
    seen, todo = {node}, [node]
    while todo:
        node = todo.pop()
        if "function" in node.meta:
            return True
        fresh = [source for source in node.all_input_nodes if source not in seen]
        seen.update(fresh)
        todo += fresh
    return False


def _annotations(module: nn.Module) -> dict[str, Any]:
    try:
        return get_type_hints(type(module).forward)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_loss(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_loss, value))
    return isinstance(value, Tensor)


def _hint(arguments: Mapping[str, Argument]) -> str:
    """Say what could make the arguments of a loss fit."""
    several = [a.value for a in arguments.values() if not isinstance(a.value, Tensor)]
    if pick_hint(several):
        return pick_hint(several)
    sides = [a for a in arguments.values() if a.reference.recorder is not None]
    shapes = {tuple(a.value.shape) for a in sides if isinstance(a.value, Tensor)}
    if len(shapes) > 1 and not any(a.reference.connector for a in sides):
        return " (a connector can change it: 'student_connector: auto')"
    return ""
