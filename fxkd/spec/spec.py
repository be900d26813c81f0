"""A distillation as one frozen value, read from a mapping or YAML and checked as far as no model is needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

from fxkd.errors import Problems
from fxkd.spec.algorithm import Algorithm
from fxkd.spec.check import check_spec
from fxkd.spec.frozen import frozen
from fxkd.spec.pairs import expand_pairs
from fxkd.spec.sections import SECTIONS, read_fields, unwrap
from fxkd.spec.source import read_source
from fxkd.spec.vocabulary import Config, Delivery, Recorder, Reference, StudentLoss
from fxkd.spec.writing import as_dict, as_yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec(Algorithm):
    """A distillation, frozen and checked: every name in it means something.

    Args:
        student_recorders: Points of the student whose values losses read, by name.
        teacher_recorders: The same for the teacher.
        distill_deliveries: Points at which the student takes the teacher's values.
        connectors: Modules that make a record fit its partner: a config, a list of them (a chain), a module, or
            ``"auto"`` (chosen by the shapes when example inputs are given).
        distill_losses: Losses by name; those whose name contains ``loss`` are summed and trained.
        loss_forward_mappings: For each loss, where each argument of its ``forward`` comes from.
        inputs: Arguments of a call that are for the losses and not for the models.
        student_loss: ``"auto"`` takes the loss that the student returns, ``False`` leaves it out, a mapping makes one.
        return_output: Whether a call gives what the student returned.
        **algorithm: How it is run: see ``Algorithm``.
        lines: Where each part is written, if it comes from a file: for messages.

    The vocabulary is MMRazor's (https://mmrazor.readthedocs.io); ``pairs`` is short for a recorder on each side,
    connectors, a loss and its mapping: each has ``student``, ``teacher`` (points) and ``loss``, and may have ``losses``
    or ``head`` in its place, ``student_connector``, ``teacher_connector``, ``dim_select``, ``from_teacher``, ``args``
    and ``name``.

    >>> spec = Spec.load({"pairs": [{"student": "layer2", "teacher": "layer2", "loss": {"type": "L2Loss"}}]})
    >>> spec.student_recorders
    {'layer2': Recorder(type='ModuleOutputs', source='layer2')}
    >>> list(spec.distill_losses)
    ['loss_layer2']
    """

    student_recorders: Mapping[str, Recorder] = field(default_factory=dict)
    teacher_recorders: Mapping[str, Recorder] = field(default_factory=dict)
    distill_deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    connectors: Mapping[str, Config] = field(default_factory=dict)
    distill_losses: Mapping[str, Config] = field(default_factory=dict)
    loss_forward_mappings: Mapping[str, Mapping[str, Reference]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    student_loss: StudentLoss | str | bool = "auto"
    return_output: bool = True
    lines: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Keep copies of the mappings that nobody can change."""
        Algorithm.__post_init__(self)
        for name in (*SECTIONS, "lines"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @classmethod
    def load(cls, source: Union["Spec", Mapping[str, Any], str, Path], *, allow_imports: bool = False) -> "Spec":
        """Read a spec from a mapping, from a YAML file or from a config in Python; nothing in it is executed.

        MMRazor's and GML's configs are read too; ``fxkd migrate`` shows what they are in a spec's keys. Modules that
        ``custom_imports`` names are imported, which executes them, only with ``allow_imports``.

        Raises:
            SpecError: One report of everything that is wrong, each with its place, and its line in a file.
        """
        problems = Problems()
        spec = cls.read(source, problems, allow_imports=allow_imports)
        problems.raise_if_any()
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Give the mapping that ``load`` reads as this spec; what is as by default is left out.

        >>> pair = {"student": "0", "teacher": "0", "loss": {"type": "L1Loss"}}
        >>> spec = Spec.load({"pairs": [pair]})
        >>> spec.to_dict()["student_recorders"], Spec.load(spec.to_dict()) == spec
        ({'0': {'type': 'ModuleOutputs', 'source': '0'}}, True)
        """
        return as_dict(self)

    def to_yaml(self) -> str:
        """Give the text of a YAML file that ``load`` reads as this spec.

        Raises:
            SpecError: It holds a module or a function, which no file can.

        >>> print(Spec.load({"distill_losses": {}, "return_output": False}).to_yaml())
        return_output: false
        <BLANKLINE>
        """
        return as_yaml(self)

    @property
    def reads_teacher(self) -> bool:
        """Whether anything of the teacher is recorded or delivered; where nothing is, it need not run."""
        asked = self.teacher_recorders or self.distill_deliveries or self.teacher_trainable
        return bool(asked) and not self.self_distillation

    @property
    def teacher_grad(self) -> bool:
        """Whether the teacher runs with gradients."""
        asked = any(recorder.is_of_gradients for recorder in self.teacher_recorders.values())
        return self.teacher_trainable or self.teacher_gradients or asked

    @property
    def cuts_deliveries(self) -> bool:
        """Whether values of a frozen teacher, which runs with gradients for its records, are handed over without."""
        return self.teacher_grad and not (self.teacher_trainable or self.teacher_gradients)

    @property
    def returns_teacher(self) -> bool:
        """Whether what the teacher returns is needed: a loss of its own is trained on, or its gradient recorded."""
        asked = any(recorder.is_of_gradients for recorder in self.teacher_recorders.values())
        return (self.teacher_trainable or asked) and not self.self_distillation

    @property
    def student_first(self) -> bool:
        """Whether the teacher waits for values of the student."""
        return any(delivery.from_student for delivery in self.distill_deliveries.values())

    def self_taught(self) -> "Spec":
        """Give the spec of a student that is its own teacher: what it learns from gets no gradient."""
        mappings = {
            loss: {
                argument: replace(reference, detach=reference.detach or reference.from_student is False)
                for argument, reference in mapping.items()
            }
            for loss, mapping in self.loss_forward_mappings.items()
        }
        return replace(self, self_distillation=True, loss_forward_mappings=mappings)

    def without_distillation(self) -> "Spec":
        """Give the spec of the student alone: nothing is recorded, delivered or compared, its own loss stays."""
        recorders: dict[str, Any] = {"student_recorders": {}, "teacher_recorders": {}}
        args = self.student_loss.args.values() if isinstance(self.student_loss, StudentLoss) else ()
        read = {value["from_input"] for value in args if value != "from_output"}
        inputs = tuple(name for name in self.inputs if name in read)
        losses: dict[str, Any] = {"distill_losses": {}, "loss_forward_mappings": {}, "inputs": inputs}
        return replace(self, **recorders, **losses, distill_deliveries={}, teacher_trainable=False)

    @classmethod
    def read(
        cls, source: Union["Spec", Mapping[str, Any], str, Path], problems: Problems, *, allow_imports: bool = False
    ) -> "Spec":
        """Read what can be read, and note in ``problems`` what cannot: for a report that says more than this."""
        given = read_source(source, problems, allow_imports=allow_imports)
        if isinstance(given, Mapping):
            try:
                fields = read_fields(expand_pairs(unwrap(given, problems), problems), problems)
                spec = cls(**fields, lines=problems.lines)
            except RecursionError:
                problems.add("the spec", "is nested without end: something in it holds itself")
                return cls()
        elif isinstance(given, Spec):
            spec = given
            problems.lines.update(spec.lines)
        else:
            _refuse(given, source, problems)
            return cls()
        check_spec(spec, problems)
        return spec


def _refuse(given: Any, source: Any, problems: Problems) -> None:
    """Say that a spec is no mapping; a file that could not be read has its reason already."""
    if given is not None or source is None:
        where = str(source) if isinstance(source, (str, Path)) else "the spec"
        names = ", ".join(map(repr, ("pairs", *SECTIONS)))
        problems.found.append(f"{where}: is a {type(given).__name__}; a spec is a mapping with {names}")
