"""Check a distillation without running a model for real: all mistakes, shapes, cost, and what is pruned."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxkd.adapt import adapt
from fxkd.auto import sized
from fxkd.capture import Captured, Inputs, Layout
from fxkd.capture.discover import ValuesNeededError
from fxkd.checks import check_calls, check_paths, read_both, runs
from fxkd.cost import Cost, costs, count
from fxkd.errors import FxkdError, Problems, SpecError
from fxkd.fakes import Stage, needs_values
from fxkd.findings import Pair, Report, pairs_of, pruned_names
from fxkd.observe import example_calls, in_mode, lookup_in, model_inputs, training
from fxkd.passes import run
from fxkd.program import default_passes
from fxkd.shapes import Flow
from fxkd.sides import capture_student, capture_teacher, join_sides, known
from fxkd.spec import Spec
from fxkd.spec.build import build_each
from fxkd.spec.check import is_auto
from fxkd.spec.sound import sound
from fxkd.teachers import Teachers
from fxkd.unmeant import unmeant
from fxkd.watch import never_on_values


def check(
    student: nn.Module,
    teacher: nn.Module | Mapping[str, nn.Module] | None,
    spec: Spec | Mapping[str, Any] | str | Path,
    example_inputs: Any,
    *,
    return_records: bool = False,
) -> Report:
    """Look for everything that is wrong with a distillation; no model runs on values, and both are left as they were.

    What is checked is the training step: the student in train mode (one that is in train mode keeps the flags of its
    parts) and the teacher in eval mode, captured on tensors without values. Not seen are what named functions give
    that run on values only, graphs that hold for one size only, and draws that a graph cannot follow: ``prepare`` tells
    them.

    Args:
        student: The model to train.
        teacher: The model to learn from, several by name, or None for a student that is its own teacher.
        spec: As for ``prepare``; ``connector: auto`` is sized.
        example_inputs: Arguments for both models, and the spec's own ``inputs`` among the keywords: a tuple of
            positionals, a dict of keywords, ``fxkd.Inputs`` or one tensor; or a list of several such, of which the
            first is taken. Only their form matters.
        return_records: As for ``prepare``: records without a reader are meant.

    Returns:
        A report that prints as a table; ``report.problems`` are what ``prepare`` would raise.

    >>> student, teacher = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    >>> pair = {"student": "0", "teacher": "0", "loss": {"type": "L2Loss"}, "student_connector": "auto"}
    >>> report = check(student, teacher, {"pairs": [pair]}, torch.zeros(3, 4))
    >>> print(report)
    No problems.
    <BLANKLINE>
    loss    argument   from       record         connector       given
    loss_0  s_feature  student 0  tensor (3, 6)  loss_0_student  tensor (3, 8)
            t_feature  teacher 0  tensor (3, 8)                  tensor (3, 8)
    <BLANKLINE>
    part        parameters  left  FLOPs  left
    student             44    44    216   216
    teacher             40    40    192   192
    connectors          56    56    288   288
    losses               0     0      0     0
    <BLANKLINE>
    Pruned: teacher 1
    """
    problems = Problems()
    one, read, are_models, is_read = read_both(student, teacher, spec, problems)
    check_paths(student, one, read, problems)
    if not are_models or not is_read:
        return Report(problems=tuple(problems.found))
    with torch.compiler.set_stance("force_eager"):
        return _Checking(student, one, read, problems, return_records).report(example_inputs)


def _note(step: Callable[[], Any], problems: Problems, where: str = "") -> Any:
    """Do a step; note what it raises."""
    try:
        return step()
    except SpecError as error:
        problems.found += [f"{where}: {problem}" if where else problem for problem in error.problems]
    except FxkdError as error:
        problems.found.append(f"{where}: {error}" if where else str(error))
    return None


class _Checking:
    """One check, step by step; each adds to the problems."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, spec: Spec, problems: Problems, return_records: bool
    ) -> None:
        self.student, self.teacher, self.spec, self.problems = student, teacher, sound(spec, problems), problems
        self.reads_teacher = spec.reads_teacher and teacher is not None
        self.models = {"student": student} | ({} if teacher is None else {"teacher": teacher})
        self.return_records = return_records
        self.unseen: list[str] = []
        self.remarks = unmeant(spec, return_records=return_records) if not problems.found else []
        self.stage = Stage()

    def report(self, example_inputs: Any) -> Report:
        """Capture, check, count."""
        calls: list[Inputs] = _note(lambda: example_calls(example_inputs) or [Inputs.of(example_inputs)], self.problems)
        sides = self._captured(model_inputs(calls[0], self.spec)) if calls else ()
        if not sides:
            self._modules()
            return self._told()
        inputs = model_inputs(calls[0], self.spec)
        ran = runs(self.student, self.teacher, sides, inputs, self.spec)
        with never_on_values():
            check_calls(*ran, self.spec, self.problems)
        self.spec = sized(self.spec, lookup_in(sides, self.spec), self.problems)
        flow = Flow(
            student=sides[0],
            teacher=None if ran[1] is None else ran[1].captured,
            spec=self.spec,
            modules=self._modules(),
            given=self._given(calls[0]),
            problems=self.problems,
            stage=self.stage,
        ).run()
        self.remarks += flow.remarks
        counted = {side.name: count(side, self.models[side.name]) for side in sides}
        joint = None if self.problems.found else self._joint(sides, flow)
        return self._told(
            pairs_of(flow),
            costs(flow, self.models, counted, joint),
            () if joint is None else pruned_names(joint),
        )

    def _told(self, pairs: tuple[Pair, ...] = (), cost: tuple[Cost, ...] = (), pruned: tuple[str, ...] = ()) -> Report:
        return Report(
            problems=tuple(dict.fromkeys(self.problems.found)),
            warnings=tuple(dict.fromkeys(self.remarks)),
            unseen=tuple(self.unseen),
            pairs=pairs,
            costs=cost,
            pruned=pruned,
            spec=self.spec,
        )

    def _captured(self, inputs: Inputs) -> tuple[Captured, ...]:
        """Sketch the student, and the teacher if it is asked anything; nothing if one cannot be."""
        sides: list[Captured] = []
        with ExitStack() as stack:
            if self.teacher is not None:
                stack.enter_context(in_mode(self.teacher, nn.Module.eval))
            if not self.student.training:
                stack.enter_context(training(self.student))
            layout = _note(lambda: Layout.of(inputs, self.student), self.problems)
            teacher = [(self.models["teacher"], capture_teacher)] if self.reads_teacher else []
            for model, capture in ((self.student, capture_student), *teacher):
                try:
                    if layout is not None:
                        sides.append(capture(model, self.spec, inputs, layout, sketch=True))
                except ValuesNeededError as error:
                    self.unseen.append(str(error))
                except SpecError as error:
                    self.problems.found += error.problems
                except FxkdError as error:
                    self.problems.found.append(str(error))
        return tuple(sides) if len(sides) == 1 + len(teacher) else ()

    def _given(self, inputs: Inputs) -> dict[str, Tensor]:
        extra = {name: inputs.kwargs[name] for name in self.spec.inputs if name in inputs.kwargs}
        own = model_inputs(inputs, self.spec)
        return known(Layout.of(own, self.student), own) | {n: v for n, v in extra.items() if isinstance(v, Tensor)}

    # Connectors and losses

    def _modules(self) -> dict[str, Any]:
        """Build connectors and losses without values."""
        chosen = {name: config for name, config in self.spec.connectors.items() if not is_auto(config)}
        with self.stage.mode:
            connectors, losses, own = build_each(replace(self.spec, connectors=chosen), self._not_built)
            adapt(
                connectors,
                self.spec,
                {True: self.student, False: self.student if self.teacher is None else self.teacher},
                self.problems,
            )
        return {"connectors": connectors, "losses": losses} | ({"student_loss": own} if own is not None else {})

    def _not_built(self, where: str, error: SpecError) -> None:
        if isinstance(error.__cause__, Exception) and needs_values(error.__cause__):
            self.unseen.append(f"{where} is built on values only")
        else:
            self.problems.add(where, str(error))

    def _joint(self, sides: tuple[Captured, ...], flow: Flow) -> fx.GraphModule | None:
        """Join and prune."""
        if self.unseen:
            return None
        modules = self.models | dict(flow.modules)
        several = isinstance(self.teacher, Teachers)
        steps = default_passes(self.spec, return_records=self.return_records, several=several)
        made: fx.GraphModule | None = _note(lambda: run(join_sides(sides, modules, self.spec), steps), self.problems)
        return made
