"""The module that is trained: the student, what it learns from, and the graphs that run both."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxkd.adapt import adapt
from fxkd.capture import Inputs
from fxkd.eager_backend import EagerBackend
from fxkd.errors import CaptureError, DifferenceError, GuardError, Problems, SpecError
from fxkd.graph_backend import GraphBackend, drawn_decision
from fxkd.observe import model_inputs, training
from fxkd.options import Options
from fxkd.output import DistillOutput
from fxkd.program import Program, build
from fxkd.progress import Progress
from fxkd.signature import signature_of, with_signature
from fxkd.spec import Spec
from fxkd.spec.build import build_parts, scheduled
from fxkd.summary import summary
from fxkd.teachers import teachers_in
from fxkd.unmeant import Warner, unmeant
from fxkd.verify import DrawsError, ModelsError, more_rows, other_rows, verify


class Distiller(nn.Module):
    """A student that learns from a teacher: call it like the student, train it like any module.

    Made by ``prepare``. Parameters and state dict hold the student (``student.``), connectors (``connectors.``) and
    learnable losses (``losses.``), never the teacher; moving the distiller moves the teacher along. ``train()`` and
    ``eval()`` leave the teacher in its mode. A copy (``copy.deepcopy``) shares the teacher; copies and pickles capture
    anew at their first call.

    Raises:
        SpecError: At a call that lacks one of the spec's ``inputs``.
        CaptureError: At the first call, if no example inputs were given and a model cannot be captured.

    >>> import fxkd, torch
    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> pair = {"student": "0", "teacher": "0", "loss": {"type": "L1Loss"}}
    >>> distiller = fxkd.prepare(model, copy.deepcopy(model), {"pairs": [pair]})
    >>> isinstance(distiller, Distiller), distiller.student is model, list(distiller.state_dict())
    (True, True, ['student.0.weight', 'student.0.bias'])
    >>> distiller(torch.ones(3, 4)).loss.item()
    0.0
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, spec: Spec, options: Options) -> None:
        super().__init__()
        self.student = student
        if spec.teacher_trainable:
            self.teacher = teacher
        self.connectors, self.losses, self.student_loss = build_parts(spec)
        self.spec, self.options = spec, options
        self.notes: list[str] = []
        # In a dict, so that torch does not take a frozen teacher for a part.
        self._beside = {"teacher": teacher} if teacher is not None and not spec.teacher_trainable else {}
        moving = scheduled(spec, self.connectors, self.losses, self.student_loss)
        if moving or spec.stop_epoch is not None:
            self.progress = Progress(moving, spec.stop_epoch)
        self._running: GraphBackend | EagerBackend | None = None
        self._was_stopped, self._ran_stopped, self._warn = False, False, Warner()
        for part in (self.connectors, self.losses):
            part.train(student.training)
        self.training = student.training  # the student's own flags stay as they are, frozen parts included
        self._sign()

    @property
    def teachers(self) -> dict[str, nn.Module]:
        """The teachers by name; frozen, they are no part of ``parameters()`` or ``state_dict()``."""
        return teachers_in(self._teacher)

    @property
    def _teacher(self) -> nn.Module | None:
        """What teaches as one module."""
        return self._modules.get("teacher", self._beside.get("teacher"))

    def forward(self, *args: Any, **kwargs: Any) -> DistillOutput:
        """Run teacher, student, connectors and losses on one batch.

        Args:
            *args: What the student takes, and the teacher too.
            **kwargs: The same, and the values of the spec's ``inputs``.
        """
        result = self._step(self._steps(), Inputs(args, kwargs))
        records = result.pop("records") if self.options.return_records else None
        return DistillOutput({**result, "records": records})

    def step(self) -> None:
        """Tell that an epoch, or what you count in, is over.

        Schedules go on, every loss and connector that has a ``step()`` is told, and at the spec's ``stop_epoch`` the
        distillation ends. Where there are schedules the state dict holds how far they are.
        """
        for part in (*self.connectors.children(), *self.losses.children()):
            advance = getattr(part, "step", None)
            if callable(advance):
                advance()
        if "progress" in self._modules:
            self.progress.advance()

    def stop(self) -> None:
        """End the distillation: from now on the teacher does not run and only the student's own loss is left."""
        self._was_stopped = True

    @property
    def is_stopped(self) -> bool:
        """Whether the distillation has ended: by ``stop()``, or at the spec's ``stop_epoch``."""
        return self._was_stopped or ("progress" in self._modules and self.progress.is_over)

    def capture(self, *calls: Inputs) -> None:
        """Capture both models now, in the mode they are in, and a student in eval mode also as it trains; then verify.

        Args:
            *calls: What to capture, then further calls to verify; if there is one it is varied.

        Raises:
            CaptureError: A model cannot be a graph, or the graph does not do what the models do.
        """
        steps = self._steps()
        if not isinstance(steps, GraphBackend):
            return
        self._capture(steps, calls)
        if not self.student.training:
            self._capture_training(steps, calls)

    def _capture_training(self, steps: GraphBackend, calls: Sequence[Inputs]) -> None:
        """Capture the student in train mode too; one that takes these inputs in eval mode alone is told of."""
        try:
            with training(self.student):
                self._capture(steps, calls)
        except DifferenceError:
            raise
        except CaptureError as error:
            self.notes.append(f"not captured in train mode, until it is called in it: {error}")

    def _capture(self, steps: GraphBackend, calls: Sequence[Inputs]) -> None:
        given = calls[0].kwargs
        extra = {name: given[name] for name in self.spec.inputs if isinstance(given.get(name), Tensor)}
        steps.capture(model_inputs(calls[0], self.spec), extra)
        why_not = self._not_verifiable(calls)
        if self.options.verify and why_not:
            self.notes.append(f"not verified: {why_not}")
        elif self.options.verify:
            self._verify(steps.uncompiled(may_capture=len(calls) > 1), calls)

    def _not_verifiable(self, calls: Sequence[Inputs]) -> str:
        """Say what the comparison lacks; nothing if it can be made."""
        missing = [name for name in self.spec.inputs if any(name not in call.kwargs for call in calls)]
        if missing:
            return f"the example inputs lack {', '.join(map(repr, missing))}"
        return "there are no values on the meta device" if any(p.is_meta for p in self.student.parameters()) else ""

    def _verify(self, steps: GraphBackend, calls: Sequence[Inputs]) -> None:
        """Compare the graph with the models; where it draws fewer random numbers, the graph before pruning."""
        try:
            self._compare(steps, calls)
        except DrawsError:
            self._compare(self._backend(None, prune=False), calls)

    def _compare(self, steps: GraphBackend, calls: Sequence[Inputs]) -> None:
        """Compare a graph with the models themselves; one call is varied, in its size too if that is free."""
        compare = partial(
            verify,
            lambda call: self._step(steps, call),
            lambda call: self._step(self._eager(), call),
            {name: part for name, part in self._parts().items() if name != "student_loss"},
            backward=self.options.verify == "backward",
        )
        try:
            compare(calls)
        except GuardError as error:
            raise drawn_decision(error) from error
        if len(calls) == 1 and not any(_takes(compare, vary, calls[0]) for vary in (more_rows, other_rows)):
            self.notes.append("verified on the example inputs alone: the models do not take other rows")

    @property
    def programs(self) -> list[Program]:
        """The captured programs: one for each form of call, mode and decision on sizes that was met."""
        return self._running.programs if isinstance(self._running, GraphBackend) else []

    @property
    def graph_module(self) -> fx.GraphModule:
        """The joint graph of the mode that the models are in."""
        for program in sorted(self.programs, key=Program.holds, reverse=True):
            if any(situation.fits_models() for situation in program.situations):
                return program.module
        raise CaptureError(
            "nothing is captured in this mode yet: call the distiller once, or give prepare example_inputs"
        )

    def _steps(self) -> GraphBackend | EagerBackend:
        if self._running is None or self._ran_stopped != self.is_stopped:
            self._running, self._ran_stopped = self._start(), self.is_stopped
        return self._running

    def _start(self) -> GraphBackend | EagerBackend:
        if self.options.backend == "eager":
            return self._eager()
        return self._backend(self.options.compile_options(self.student))

    def _backend(self, compile_options: dict[str, Any] | None, **how: Any) -> GraphBackend:
        return GraphBackend(partial(self._make(), **how), self.student, compile_options, _given(self._teacher))

    def _make(self) -> Callable[..., Program]:
        options = self.options
        return partial(
            build,
            self.student,
            self._teacher,
            self._parts(),
            self._active_spec(),
            clone_records=options.clone_records,
            return_records=options.return_records,
            passes=tuple(options.passes or ()),
            warn=self._warn,
        )

    def _eager(self) -> EagerBackend:
        options = self.options
        given = (self.student, self._teacher, self._parts(), self._active_spec())
        return EagerBackend(*given, options.clone_records, options.return_records)

    def _parts(self) -> dict[str, nn.Module]:
        modules = {"student": self.student, "teacher": self._teacher, "connectors": self.connectors}
        modules |= {"losses": self.losses, "student_loss": self.student_loss}
        return {name: module for name, module in modules.items() if module is not None}

    def _active_spec(self) -> Spec:
        return self.spec.without_distillation() if self.is_stopped else self.spec

    def _step(self, steps: GraphBackend | EagerBackend, call: Inputs) -> dict[str, Any]:
        kwargs = dict(call.kwargs)
        given = {name: kwargs.pop(name, None) for name in self.spec.inputs}
        extra = {name: _tensor(name, given[name]) for name in self._active_spec().inputs}
        return steps.step(call.args, kwargs, extra)

    def freeze_teachers(self) -> None:
        """Put the teacher in its mode, a frozen one without gradients; what it shares with the student stays."""
        shared = set(map(id, self.student.parameters()))
        for teacher in _given(self._teacher):
            self.options.set_mode(teacher)
        for teacher in self._beside.values():
            for parameter in teacher.parameters():
                if id(parameter) not in shared:
                    parameter.requires_grad_(False)

    def adapt_connectors(self) -> None:
        """Let each connector that adapts to what it is put behind look at the module there."""
        problems = Problems(dict(self.spec.lines))
        models = {True: self.student, False: self.student if self._teacher is None else self._teacher}
        adapt(self.connectors, self.spec, models, problems)
        problems.raise_if_any()

    def train(self, mode: bool = True) -> "Distiller":
        """Set the mode of the student, and of a teacher that trains as far as ``teacher_mode`` lets it; return self."""
        super().train(mode)
        if "teacher" in self._modules and (mode or self.options.teacher_mode == "eval"):
            self.options.set_mode(self._modules["teacher"])  # type: ignore[arg-type]
        return self

    def warn_of_unmeant(self) -> None:
        """Warn of what the spec holds without use."""
        self._warn(unmeant(self.spec, return_records=self.options.return_records))

    def _sign(self) -> None:
        """Let ``inspect.signature(distiller.forward)`` be the student's."""
        method = with_signature(type(self).forward, signature_of(self.student, self.spec.inputs))
        self.__dict__["forward"] = MethodType(method, self)

    def __repr__(self) -> str:
        own = {"connectors": self.connectors, "losses": self.losses}
        return summary({"student": self.student} | self.teachers, own, self.spec, self.programs, self._how())

    def _how(self) -> list[str]:
        compiled = self.options.compile_options(self.student) is not None and self.options.backend == "graph"
        where = "the student is on CUDA" if compiled else "the student is not on CUDA"
        why = f" ({where})" if self.options.compile == "auto" else ""
        how = [f"backend: {self.options.backend}, {'compiled' if compiled else 'not compiled'}{why}", *self.notes]
        return [*how, "stopped: the teacher does not run"] if self.is_stopped else how

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        """Move the teacher along; graphs, which hold devices and types, are captured anew."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for teacher in self._beside.values():
            teacher._apply(fn)
        self._running = None
        return self

    def to_empty(self, *, device: Any, recurse: bool = True) -> "Distiller":
        """Give all tensors memory without values; a teacher that has values keeps them, as no state dict holds them."""
        teachers, self._beside = self._beside, {}
        try:
            super().to_empty(device=device, recurse=recurse)
        finally:
            self._beside = teachers
        for teacher in teachers.values():
            teacher._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs: they hang on these very modules and are captured again."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key != "forward"} | {"_running": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._sign()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Distiller":
        """Copy all but the teacher, which is frozen and shared; one that shares weights with the student goes along."""
        own = set(map(id, self.parameters()))
        memo |= {id(t): t for t in self._beside.values() if not any(id(p) in own for p in t.parameters())}
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return new


def _given(teacher: nn.Module | None) -> tuple[nn.Module, ...]:
    return () if teacher is None else (teacher,)


def _takes(compare: Callable[..., None], vary: Callable[[Inputs], Inputs], call: Inputs) -> bool:
    """Compare on a variation of a call; tell whether the models and the graph are for it."""
    try:
        varied = vary(call)
    except RuntimeError:  # a kind of tensor that has no rows to turn around
        return False
    try:
        compare([varied], first_seed=1)
    except (GuardError, ModelsError):
        return False
    return True


def _tensor(name: str, value: Any) -> Tensor:
    """Refuse a call that lacks what the losses read."""
    if not isinstance(value, Tensor):
        raise SpecError([f"inputs: the call must give {name}=<tensor>, which the losses read; it gave {value!r}"])
    return value
