"""What any spec means, in plain PyTorch: what ``oracle.run_with_hooks`` leaves out is here too.

That is: several teachers or none, gradients at points, values given by the student, inputs that are handed over, one
part of a value, losses of the models' own, values of the call, and references that are cut.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.oracle import Modules, OracleResult, Records, clone, mapped, patched, recording, resolve

PATHS = {"Function": "func_path", "Method": "method_path", "Module": "source"}


@dataclass(frozen=True)
class PlainResult(OracleResult):
    """What a step gives, and the student's own loss."""

    student_loss: Tensor | None = None


class Several(nn.ModuleDict):
    """Run several teachers, one after the other."""

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: teacher(*args, **kwargs) for name, teacher in self.items()}


class Plain:
    """A student, what it learns from and a spec, to be called like a distiller.

    Args:
        student: Runs in its own mode.
        teacher: Runs without gradients, in its own mode; None if the student is its own.
        spec: The six keys, ``inputs`` and ``student_loss``, as a plain dict.
        connectors: By name.
        losses: By name.
        student_loss: The module that the spec's ``student_loss`` names.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        spec: Mapping[str, Any],
        connectors: Modules,
        losses: Modules,
        student_loss: nn.Module | None = None,
    ) -> None:
        self.student, self.teacher, self.spec = student, teacher, spec
        self.connectors, self.losses, self.student_loss = connectors, losses, student_loss
        self.deliveries = spec.get("distill_deliveries", {})

    def __call__(self, *args: Any, **kwargs: Any) -> PlainResult:
        """Run both models in their order, then connectors and losses."""
        extra = {name: kwargs.pop(name) for name in self.spec.get("inputs", ())}
        queues: dict[str, deque[Any]] = {name: deque() for name in self.deliveries}
        first, second = self.sides()
        outputs, records, taken = dict[str, Any](), dict[str, Records](), dict[str, dict[str, list[Tensor]]]()
        for side, gives in ((first, True), (second, False)):
            if side is not None:
                outputs[side], found, taken[side] = self.run(side, queues, gives, args, kwargs)
                records |= found
        own = self.own_loss(outputs["student"], extra)
        self.take_gradients(own, outputs, extra, records, taken)
        losses = {
            name: self.losses[name](**{key: self.value(info, records, extra) for key, info in mapping.items()})
            for name, mapping in self.spec.get("loss_forward_mappings", {}).items()
        }
        terms = [loss for name, loss in losses.items() if "loss" in name] + ([own] if own is not None else [])
        loss = torch.stack(terms).sum() if terms else None
        return PlainResult(loss, losses, outputs["student"], records, own)

    def sides(self) -> tuple[str | None, str | None]:
        """Say who runs first: who gives."""
        if self.teacher is None:
            return None, "student"
        from_student = any(delivery.get("from_student") for delivery in self.deliveries.values())
        return ("student", "teacher") if from_student else ("teacher", "student")

    def run(
        self, side: str, queues: Mapping[str, deque[Any]], gives: bool, args: Any, kwargs: Any
    ) -> tuple[Any, dict[str, Records], dict[str, list[Tensor]]]:
        """Run one model with everything around it that the spec asks for."""
        model = self.student if side == "student" else self.teacher
        values, gradients = self.recorders(side)
        sides = (side, "teacher") if self.teacher is None else (side,)
        wants_grad = side == "student" or bool(gradients[side])
        with ExitStack() as stack:
            stack.enter_context(nullcontext() if wants_grad else torch.no_grad())
            for name, delivery in self.deliveries.items():
                stack.enter_context(handing_over(model, delivery, queues[name], gives))
            points = {one: stack.enter_context(split_off(model, gradients[one])) for one in sides}
            records = {one: stack.enter_context(recording(model, values[one])) for one in sides}
            output = model(*args, **kwargs)
        return output, records, {f"{one}.{name}": found for one in sides for name, found in points[one].items()}

    def recorders(self, side: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Part the recorders of values from those of gradients, by side."""
        sides = (side, "teacher") if self.teacher is None else (side,)
        given = {one: self.spec.get(f"{one}_recorders", {}) for one in sides}
        of = [
            {one: {n: r for n, r in e.items() if (r["type"] == "ModuleGradients") is kind} for one, e in given.items()}
            for kind in (False, True)
        ]
        return of[0], of[1]

    def own_loss(self, output: Any, extra: Mapping[str, Any]) -> Tensor | None:
        """Give the loss of a model's own: one that the spec makes, or one that it returned."""
        asked = self.spec.get("student_loss", "auto")
        if isinstance(asked, Mapping):
            given = {k: output if v == "from_output" else extra[v["from_input"]] for k, v in asked["args"].items()}
            return self.student_loss(**given)
        if not asked:
            return None
        if isinstance(output, Mapping):
            found = [value for key, value in output.items() if "loss" in key]
            return torch.stack(found).sum() if found else None
        return getattr(output, "loss", None)

    def take_gradients(self, own: Any, outputs: Any, extra: Any, records: dict[str, Records], taken: Any) -> None:
        """Fill the records of gradients, now that there is a loss."""
        for ran, found in taken.items():
            loss = own if ran == "student" else self.own_loss(outputs[ran], extra) if found else None
            for path, values in found.items():
                side, name = path.split(".", 1)
                gradients = torch.autograd.grad(loss, values, create_graph=True)
                records[side][name] = [g if ran == "student" else g.detach() for g in gradients]

    def value(self, info: Mapping[str, Any], records: Mapping[str, Records], extra: Mapping[str, Any]) -> Any:
        """Fetch one argument of a loss."""
        if "from_input" in info:
            return extra[info["from_input"]]
        several = isinstance(info["recorder"], (list, tuple))
        names = info["recorder"] if several else [info["recorder"]]
        of_side = records["student" if info["from_student"] else "teacher"]
        values = [of_side[name][info.get("record_idx", 0)] for name in names]
        if info.get("data_idx") is not None:
            values = [value[info["data_idx"]] for value in values]
        value = tuple(values) if several else values[0]
        if info.get("connector") is not None:
            value = self.connectors[info["connector"]](value)
        if info.get("connector_idx") is not None:
            value = value[info["connector_idx"]]
        is_cut = info.get("detach") or not (info["from_student"] or self.recorders("teacher")[1]["teacher"])
        return mapped(Tensor, Tensor.detach, value) if is_cut else value


@contextmanager
def split_off(model: nn.Module, recorders: Mapping[str, Any]) -> Iterator[dict[str, list[Tensor]]]:
    """Keep what modules give, so that gradients can be taken there, and let the model go on with a copy."""
    values: dict[str, list[Tensor]] = {name: [] for name in recorders}
    with ExitStack() as stack:
        for name, recorder in recorders.items():

            def hook(module: nn.Module, args: Any, output: Tensor, name: str = name) -> Tensor:
                values[name].append(output if output.requires_grad else output.detach().requires_grad_())
                return values[name][-1].clone()

            stack.callback(model.get_submodule(recorder["source"]).register_forward_hook(hook).remove)
        yield values


@contextmanager
def handing_over(model: nn.Module, delivery: Mapping[str, Any], queue: deque[Any], gives: bool) -> Iterator[None]:
    """Fill the queue from the calls made inside, or answer these calls from it."""
    kind = delivery["type"]
    path = delivery[next(key for prefix, key in PATHS.items() if kind.startswith(prefix))]
    path = path if gives else delivery.get("target", path)
    owner, name = (model.get_submodule(path), "forward") if kind.startswith("Module") else resolve(path)
    original = getattr(owner, name)
    bound = 1 if kind.startswith("Method") else 0
    if kind.endswith("Inputs"):
        made = give_inputs(original, queue, bound) if gives else take_inputs(original, queue, bound)
    else:
        part = delivery.get("data_idx")
        made = give_outputs(original, queue, part) if gives else take_outputs(original, queue, part)
    with patched(owner, name, made):
        yield


def give_outputs(original: Callable[..., Any], queue: deque[Any], part: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        queue.append(clone(value if part is None else value[part]))
        return value

    return call


def take_outputs(original: Callable[..., Any], queue: deque[Any], part: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if part is None:
            return queue.popleft()
        value = original(*args, **kwargs)
        if isinstance(value, tuple):
            return tuple(queue.popleft() if index == part else one for index, one in enumerate(value))
        value = value.copy()
        value[part] = queue.popleft()
        return value

    return call


def give_inputs(original: Callable[..., Any], queue: deque[Any], bound: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        queue.append(clone((args[bound:], kwargs)))
        return original(*args, **kwargs)

    return call


def take_inputs(original: Callable[..., Any], queue: deque[Any], bound: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        given, keywords = queue.popleft()
        return original(*args[:bound], *given, **keywords)

    return call
