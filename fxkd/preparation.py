"""Prepare a distillation: from two models and a spec to one module that is trained like any other."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.fx.passes.infra.pass_base import PassBase

from fxkd.auto import auto_connectors
from fxkd.checkpoints import load_parts, loaded
from fxkd.checks import check_paths, read_both
from fxkd.distiller import Distiller
from fxkd.errors import Problems, SpecError, did_you_mean
from fxkd.observe import example_calls, with_connectors
from fxkd.options import Options
from fxkd.spec import Spec


def prepare(
    student: nn.Module,
    teacher: nn.Module | Mapping[str, nn.Module] | None,
    spec: Spec | Mapping[str, Any] | str | Path,
    *,
    example_inputs: Any = None,
    backend: Literal["graph", "eager"] = "graph",
    compile: Literal["auto"] | bool | dict[str, Any] = "auto",  # the word torch uses
    verify: Literal["backward", "forward", False] = "backward",
    teacher_mode: Literal["eval", "train", "norm_eval", "own"] | None = None,
    clone_records: bool = True,
    return_records: bool = False,
    passes: Iterable[PassBase] | None = None,
) -> Distiller:
    """Make a distiller of a student and a teacher, without touching the source of either.

    Afterwards the teacher is frozen (unless the spec says ``teacher_trainable``) and in the mode that ``teacher_mode``
    names. If anything is wrong nothing has changed.

    Args:
        student: The model to train; ``distiller.student`` is this very object.
        teacher: The model to learn from; several as a dict by name; None for a student that is its own teacher.
        spec: What to record, deliver and compare: a ``Spec``, a mapping, or the path of a YAML file.
        example_inputs: Arguments for both models: a tuple of positionals, a dict of keywords, ``fxkd.Inputs`` or one
            tensor; or a list of several such, the first to capture, all to verify. With them the models are captured,
            checked and verified now, without at the first call.
        backend: ``"graph"`` rewrites captured graphs; ``"eager"`` runs the models as they are under patches and hooks,
            for models that cannot be captured.
        compile: Whether each joint graph goes through ``torch.compile``: ``"auto"`` does if the student is on CUDA, a
            dict gives options.
        verify: Whether the graph is run beside the models themselves on the example inputs, and on the same with the
            rows in another order and one twice: ``"backward"`` compares gradients too, ``"forward"`` losses, output and
            buffers. Both models are put back.
        teacher_mode: ``"eval"``; ``"train"``; ``"norm_eval"``, train but for batch norms; ``"own"``, as it is. By
            default what the spec says, else ``"eval"``, and ``"train"`` for a teacher that trains.
        clone_records: Whether a record that is written to later keeps the value at its point (a copy is made only
            there); False records what becomes of it, as MMRazor does.
        return_records: Whether a call gives the records too; they cost memory.
        passes: Passes of your own, run on each joint graph after those of fxkd.

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
    options = Options(
        backend=backend,
        compile=compile,
        verify=verify,
        teacher_mode=teacher_mode,
        clone_records=clone_records,
        return_records=return_records,
        passes=passes,
    )
    problems = Problems()
    options.check(problems)
    one, spec, *_ = read_both(student, teacher, spec, problems)
    check_paths(student, one, spec, problems)
    problems.raise_if_any()
    calls, options = example_calls(example_inputs), options.for_spec(spec)
    if auto_connectors(spec):
        spec = with_connectors(student, one, spec, calls, options.set_mode)
    distiller = Distiller(student, one, spec, options)
    distiller.warn_of_unmeant()
    distiller.notes += _without_pretrained(distiller)
    models = [model for model in (student, one) if model is not None]
    with as_before_on_failure(*models), loaded(_checkpoints(student, distiller.teachers, spec), spec.lines):
        distiller.adapt_connectors()
        distiller.freeze_teachers()
        if calls:
            distiller.capture(*calls)
    return distiller


def _checkpoints(student: nn.Module, teachers: Mapping[str, nn.Module], spec: Spec) -> dict[str, tuple[nn.Module, str]]:
    """Say which file goes into which model.

    Raises:
        SpecError: A file is for a teacher that there is not.
    """
    files = {} if spec.student_ckpt is None else {"student_ckpt": (student, spec.student_ckpt)}
    given = spec.teacher_ckpt if isinstance(spec.teacher_ckpt, Mapping) else {"": spec.teacher_ckpt}
    for name, path in given.items():
        where = f"teacher_ckpt.{name}" if name else "teacher_ckpt"
        if path is None:
            continue
        if name not in teachers and (name or len(teachers) != 1):
            there = ", ".join(map(repr, teachers)) or "none"
            what = f"there is no teacher {name!r}; there is {there}." if name else f"is one file; name it for {there}"
            raise SpecError([f"{where}: {what}{did_you_mean(name, teachers) if name else ''}"])
        files[where] = (teachers[name] if name else next(iter(teachers.values())), path)
    return files


def _without_pretrained(distiller: Distiller) -> list[str]:
    """Load connectors and losses that were trained before; name those that start anew."""
    path = distiller.spec.pretrained
    if path is None:
        return []
    sections = {"connectors": distiller.connectors, "losses": distiller.losses}
    parts = {
        f"{section}.{name}": part
        for section, modules in sections.items()
        for name, part in modules.items()
        if part.state_dict()
    }
    return [f"not in {path}, so it starts anew: {name}" for name in load_parts(parts, path, "pretrained")]


@contextmanager
def as_before_on_failure(*models: nn.Module) -> Iterator[None]:
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
