"""Prepare a distillation: from two models and a spec to one module that is trained like any other."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from fxkd.capture import Inputs
from fxkd.checks import check_models, check_paths
from fxkd.eager_backend import EagerBackend
from fxkd.errors import CaptureError, Problems, SpecError, did_you_mean
from fxkd.graph_backend import GraphBackend
from fxkd.output import DistillOutput
from fxkd.program import Program, build
from fxkd.spec import Spec
from fxkd.spec.build import build_parts


def prepare(
    student: nn.Module,
    teacher: nn.Module,
    spec: Spec | Mapping[str, Any] | str | Path,
    *,
    example_inputs: Any = None,
    backend: Literal["graph", "eager"] = "graph",
    compile: Literal["auto"] | bool | dict[str, Any] = "auto",  # the word torch uses
    clone_records: bool = True,
    return_records: bool = False,
) -> "Distiller":
    """Make a distiller of a student and a teacher, without touching the source of either.

    Afterwards the teacher is frozen and in eval mode. If anything is wrong nothing has changed.

    Args:
        student: The model to train; ``distiller.student`` is this very object.
        teacher: The model to learn from.
        spec: What to record, deliver and compare: a ``Spec``, a mapping, or the path of a YAML file.
        example_inputs: Arguments for both models: a tuple of positionals, a dict of keywords, ``fxkd.Inputs`` or one
            tensor. With them the models are captured and checked now, without at the first call.
        backend: ``"graph"`` rewrites captured graphs; ``"eager"`` runs the models as they are under patches and hooks,
            for models that cannot be captured.
        compile: Whether each joint graph goes through ``torch.compile``: ``"auto"`` does if the student is on CUDA, a
            dict gives options.
        clone_records: Whether a record that is written to later keeps the value at its point (a copy is made only
            there); False records what becomes of it, as MMRazor does.
        return_records: Whether a call gives the records too; they cost memory.

    Raises:
        SpecError: All problems of the spec in one report.
        CaptureError: A model does what a graph cannot hold; says where and what to do.

    >>> import torch
    >>> student, teacher = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> pair = {"student": "0", "teacher": "1", "loss": {"type": "KLDivergence", "tau": 4}}
    >>> distiller = prepare(student, teacher, {"pairs": [pair]}, example_inputs=torch.randn(3, 4))
    >>> out = distiller(torch.randn(5, 4))
    >>> out.loss.backward()
    >>> out.output.shape, list(out.losses), student[0].weight.grad is not None
    (torch.Size([5, 2]), ['loss_0'], True)
    """
    problems = Problems()
    if backend not in ("graph", "eager"):
        problems.add("backend", f"is {backend!r}; there is 'graph' and 'eager'")
    check_models(student, teacher, problems)
    spec = Spec.read(spec, problems)
    check_paths(student, teacher, spec, problems)
    problems.raise_if_any()
    records = {"clone_records": clone_records, "return_records": return_records}
    distiller = Distiller(student, teacher, spec, backend=backend, compile=compile, **records)
    if example_inputs is not None:
        with _as_before_on_failure(student, teacher):
            distiller._freeze_teacher()
            distiller.capture(Inputs.of(example_inputs))
    distiller._freeze_teacher()
    return distiller


class Distiller(nn.Module):
    """A student that learns from a teacher: call it like the student, train it like any module.

    Made by ``prepare``. Parameters and state dict hold the student (``student.``), connectors (``connectors.``) and
    learnable losses (``losses.``), never the teacher; moving the distiller moves the teacher along. ``train()`` and
    ``eval()`` leave the teacher in eval mode. A copy (``copy.deepcopy``) shares the teacher; copies and pickles capture
    anew at their first call.

    Raises:
        SpecError: At a call that lacks one of the spec's ``inputs``.
        CaptureError: At the first call, if no example inputs were given and a model cannot be captured.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> pair = {"student": "0", "teacher": "0", "loss": {"type": "L1Loss"}}
    >>> distiller = prepare(model, copy.deepcopy(model), {"pairs": [pair]})
    >>> isinstance(distiller, Distiller), distiller.student is model, list(distiller.state_dict())
    (True, True, ['student.0.weight', 'student.0.bias'])
    >>> distiller(torch.ones(3, 4)).loss.item()
    0.0
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: Spec,
        *,
        backend: str,
        compile: Any,  # the word torch uses
        clone_records: bool,
        return_records: bool,
    ) -> None:
        super().__init__()
        self.student = student
        self.connectors, self.losses, self.student_loss = build_parts(spec)
        self.spec, self.clone_records, self.return_records = spec, clone_records, return_records
        self.backend, self.compile_options = backend, compile_options(compile, student)
        self._beside = {"teacher": teacher}  # in a dict, so that torch does not take the teacher for a part
        self._running: GraphBackend | EagerBackend | None = None
        for part in (self.connectors, self.losses):
            part.train(student.training)
        self.training = student.training  # the student's own flags stay as they are, frozen parts included

    @property
    def teachers(self) -> dict[str, nn.Module]:
        """The teachers by name; they are no part of ``parameters()`` or ``state_dict()``."""
        return dict(self._beside)

    def forward(self, *args: Any, **kwargs: Any) -> DistillOutput:
        """Run teacher, student, connectors and losses on one batch.

        Args:
            *args: What the student takes, and the teacher too.
            **kwargs: The same, and the values of the spec's ``inputs``.
        """
        extra = {name: self._take(kwargs, name) for name in self.spec.inputs}
        result = self._steps().step(args, kwargs, extra)
        records = result.pop("records") if self.return_records else None
        return DistillOutput({**result, "records": records})

    def capture(self, inputs: Inputs) -> None:
        """Capture both models now, in the mode they are in; a student in eval mode also as it trains."""
        steps = self._steps()
        if isinstance(steps, GraphBackend):
            steps.capture(self._model_inputs(inputs))
            if not self.student.training:
                with training(self.student):
                    steps.capture(self._model_inputs(inputs))

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
        if self._running is None:
            self._running = self._start()
        return self._running

    def _start(self) -> GraphBackend | EagerBackend:
        teacher = self._beside["teacher"]
        modules = {"student": self.student, "connectors": self.connectors, "losses": self.losses} | self.teachers
        if self.student_loss is not None:
            modules["student_loss"] = self.student_loss
        if self.backend == "eager":
            return EagerBackend(self.student, teacher, modules, self.spec, self.clone_records, self.return_records)
        make = partial(
            build,
            self.student,
            teacher,
            modules,
            self.spec,
            clone_records=self.clone_records,
            return_records=self.return_records,
        )
        return GraphBackend(make, self.student, self.compile_options)

    def _take(self, kwargs: dict[str, Any], name: str) -> Tensor:
        value = kwargs.pop(name, None)
        if not isinstance(value, Tensor):
            raise SpecError([f"inputs: the call must give {name}=<tensor>, which the losses read; it gave {value!r}"])
        return value

    def _model_inputs(self, inputs: Inputs) -> Inputs:
        kwargs = {name: value for name, value in inputs.kwargs.items() if name not in self.spec.inputs}
        return Inputs(inputs.args, kwargs)

    def _freeze_teacher(self) -> None:
        """Put the teacher in eval mode without gradients; what it shares with the student stays as it is."""
        shared = set(map(id, self.student.parameters()))
        for teacher in self._beside.values():
            teacher.eval()
            for parameter in teacher.parameters():
                if id(parameter) not in shared:
                    parameter.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        """Move the teacher along; graphs, which hold devices and types, are captured anew."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for teacher in self._beside.values():
            teacher._apply(fn)
        self._running = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs: they hang on these very modules and are captured again."""
        return self.__dict__ | {"_running": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Distiller":
        """Copy all but the teacher, which is frozen and shared."""
        memo |= {id(teacher): teacher for teacher in self._beside.values()}
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]
        return new


def compile_options(given: Any, student: nn.Module) -> dict[str, Any] | None:
    """Read ``compile``: options of ``torch.compile``, or None for eager."""
    if given == "auto":
        given = any(parameter.is_cuda for parameter in student.parameters())
    if isinstance(given, bool):
        return {} if given else None
    if isinstance(given, Mapping):
        takes = list(inspect.signature(torch.compile).parameters)[1:]
        unknown = [
            f"compile.{key}: unknown option; torch.compile takes {', '.join(map(repr, takes))}."
            + did_you_mean(key, takes)
            for key in given
            if key not in takes
        ]
        if unknown:
            raise SpecError(unknown)
        return dict(given)
    raise SpecError([f"compile: is {given!r}; give 'auto', True, False or a dict of torch.compile's options"])


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in train mode for a while."""
    flags = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def _as_before_on_failure(*models: nn.Module) -> Iterator[None]:
    """Put modes and ``requires_grad`` back if something is raised inside."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for model in models for parameter in model.parameters()]
    try:
        yield
    except BaseException:
        for module, flag in flags:
            module.training = flag
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)
        raise
