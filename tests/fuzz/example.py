"""One example: two models, a spec and some calls, run by fxkd and by plain PyTorch."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import fxkd
from fxkd.errors import FxkdError, SpecWarning
from tests.fuzz.models import NetRecipe
from tests.fuzz.probe import CAPTURED, batch_of, labels_of, teacher_of
from tests.fuzz.recipes import pairs
from tests.fuzz.specs import specs
from tests.support.oracle import assert_same, energy, named, seed_everything, snapshot
from tests.support.plain import Plain, Several

RELATIVE, ABSOLUTE = 1e-8, 1e-10  # of float64


@dataclass(frozen=True)
class Call:
    """A step: samples, the mode of the student, and what is changed on it before."""

    size: int
    mode: str = "train"
    change: str = ""


@dataclass(frozen=True)
class Example:
    """All that one comparison needs."""

    student: NetRecipe
    teachers: tuple[NetRecipe, ...]
    spec: Mapping[str, Any]
    calls: tuple[Call, ...]
    input_gradient: bool = False
    return_records: bool = True
    is_lazy: bool = False


class Refused(Exception):
    """fxkd said that it cannot do this."""


class PlainRaises(Exception):
    """Plain PyTorch cannot do this."""


@st.composite
def examples(draw: Any, depth: int = 1) -> Example:
    """Draw models, a spec that fits them, and calls."""
    student, teachers = draw(pairs(depth))
    with in_double():
        spec = draw(specs(student.build(), teacher_of(teachers), batch_of(student, CAPTURED, 0)))
    later = st.builds(
        Call,
        st.integers(2, 5),
        st.sampled_from(("train", "train", "train", "train", "eval", "partly")),
        st.sampled_from(("", "", "", "", "", "factor", "flag", "table")),
    )
    modes = st.sampled_from(("train", "train", "train", "train", "eval"))
    calls = Call(CAPTURED, draw(modes)), *draw(st.lists(later, min_size=1, max_size=2))
    flags = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    return Example(student, teachers, spec, tuple(calls), *flags)


@contextmanager
def in_double() -> Iterator[None]:
    """Make float64 the default, so that rounding hides nothing, and do not mind what a spec leaves unused."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SpecWarning)
            yield
    finally:
        torch.set_default_dtype(before)


def check(example: Example, *, prune: bool = True) -> str:
    """Run an example; say what came of it.

    Raises:
        AssertionError: fxkd gives something else than plain PyTorch.
        Refused: fxkd refuses.
        PlainRaises: There is nothing to compare with.
    """
    with in_double():
        pair = Pair.of(example)
        if not prune:
            pair.distiller._running = pair.distiller._backend(None, prune=False)
        outcome = "equal"
        for number, call in enumerate(example.calls):
            try:
                outcome = max(outcome, pair.step(call, number))
            except DrawsDiffer:
                if not prune:
                    raise
                check(example, prune=False)
                return "equal before pruning"
        pair.check_untouched()
        return outcome


class DrawsDiffer(AssertionError):
    """The generator of random numbers stands elsewhere."""


@dataclass
class Pair:
    """The same models twice: in a distiller, and for plain PyTorch."""

    example: Example
    distiller: fxkd.Distiller
    plain: Plain
    teacher_before: dict[str, Tensor]

    @classmethod
    def of(cls, example: Example) -> "Pair":
        student, teacher = example.student.build(), teacher_of(example.teachers)
        first = example.calls[0]
        set_mode(student, first.mode)
        own, own_teacher = copy.deepcopy((student, teacher))
        x = batch_of(example.student, first.size, 0)
        kwargs = {"labels": labels_of(first.size, 0)} if example.spec["inputs"] else {}
        before = snapshot(
            named({"student": student}, "named_parameters") | named({"student": student}, "named_buffers")
        )
        try:
            distiller = fxkd.prepare(
                student,
                dict(teacher) if isinstance(teacher, Several) else teacher,
                copy.deepcopy(example.spec),
                example_inputs=None if example.is_lazy else fxkd.Inputs((x,), kwargs),
                verify=False,  # plain PyTorch tells
                return_records=example.return_records,
            )
        except FxkdError as error:
            raise Refused(str(error)) from error
        finally:
            after = snapshot(
                named({"student": student}, "named_parameters") | named({"student": student}, "named_buffers")
            )
            assert_same(before, after, 0.0, path="what prepare leaves of the student")
        if own_teacher is not None:
            own_teacher.eval().requires_grad_(False)
        parts = copy.deepcopy((distiller.connectors, distiller.losses, distiller.student_loss))
        plain = Plain(own, own_teacher, example.spec, *parts)
        return cls(example, distiller, plain, {} if teacher is None else snapshot(dict(teacher.named_parameters())))

    def step(self, call: Call, number: int) -> str:
        """Run one call on both sides and compare everything."""
        trained = [self.distiller.student, self.plain.student]
        for module in (self.distiller, self.plain.connectors, self.plain.losses):
            module.train(call.mode != "eval")
        for student in trained:
            set_mode(student, call.mode)
            CHANGES[call.change](student)
        wanted, raised = self.run(self.plain, self.plain_parts(), call, number)
        try:
            found, failed = self.run(self.distiller, self.fxkd_parts(), call, number)
        except FxkdError as error:
            raise Refused(str(error)) from error
        if failed and not raised:
            raise AssertionError(f"call {number}: backward raises {failed} and does not with hooks")
        compare(wanted, found, f"call {number}", gradients=not raised)
        for parts in (self.plain_parts(), self.fxkd_parts()):
            for parameter in named(parts, "named_parameters").values():
                if parameter.grad is not None and not raised:
                    parameter.data.add_(parameter.grad.clamp(-1, 1), alpha=-0.05)
        return "forward alone" if raised else "equal"

    def plain_parts(self) -> dict[str, nn.Module]:
        return {"student": self.plain.student, "connectors": self.plain.connectors, "losses": self.plain.losses}

    def fxkd_parts(self) -> dict[str, nn.Module]:
        given = self.distiller
        return {"student": given.student, "connectors": given.connectors, "losses": given.losses}

    def run(self, step: Any, parts: dict[str, nn.Module], call: Call, number: int) -> tuple[dict[str, Any], str]:
        """Run one call; give all that it computes, and what backward raises."""
        x = batch_of(self.example.student, call.size, number)
        x.requires_grad_(self.example.input_gradient)
        kwargs = {"labels": labels_of(call.size, number)} if self.example.spec["inputs"] else {}
        for part in parts.values():
            part.zero_grad()
        seed_everything(number)
        try:
            out = step(x, **kwargs)
        except Exception as error:
            if step is self.plain:
                raise PlainRaises(f"{type(error).__name__}: {error}") from error
            raise
        drawn, failed = torch.get_rng_state(), backward(out, self.example.spec["return_output"])
        values = {
            "loss": out.loss,
            "student loss": out.student_loss,
            "losses": dict(out.losses),
            "output": out.output if self.example.spec["return_output"] else None,
            "records": dict(out.records) if self.example.return_records else None,
            "input": x,
            "buffers": named(parts, "named_buffers"),
            "drawn": drawn,
        }
        grads = {name: p.grad for name, p in named(parts, "named_parameters").items()} | {"input": x.grad}
        return snapshot(values) | {"gradients": snapshot(grads)}, failed

    def check_untouched(self) -> None:
        """See that no teacher has learnt."""
        for one in self.distiller.teachers.values():
            assert not any(parameter.requires_grad for parameter in one.parameters())
        teachers = self.distiller.teachers
        name = "" if len(teachers) == 1 else None
        now = {
            path if name == "" else f"{key}.{path}": value
            for key, teacher in teachers.items()
            for path, value in teacher.named_parameters()
        }
        assert_same(self.teacher_before, snapshot(now), 0.0, path="teacher")


def backward(out: Any, with_output: bool) -> str:
    """Call backward on all there is; give what it raises."""
    terms = [out.loss] if out.loss is not None else []
    if with_output:
        terms.append(energy(out.output))
    total = torch.stack(terms).sum() if terms else None
    if total is None or not total.requires_grad:
        return ""
    try:
        total.backward()
    except RuntimeError as error:
        return str(error)[:60]
    return ""


def compare(wanted: dict[str, Any], found: dict[str, Any], where: str, *, gradients: bool) -> None:
    """Compare all values; where only the generator differs, say so."""
    if not torch.equal(wanted.pop("drawn"), found.pop("drawn")):
        raise DrawsDiffer(where)
    if not gradients:
        wanted.pop("gradients"), found.pop("gradients")
    assert_same(wanted, found, RELATIVE, atol=ABSOLUTE, path=where)


def set_mode(student: nn.Module, mode: str) -> None:
    """Put a student in train mode, in eval mode, or its body alone in eval mode."""
    student.train(mode != "eval")
    if mode == "partly":
        student.body.eval()


def set_table(student: Any) -> None:
    student.body.table["scale"][1] = 0.3


CHANGES: dict[str, Any] = {
    "": lambda student: None,
    "factor": lambda student: setattr(student.body, "factor", 1.75),
    "flag": lambda student: setattr(student.body, "is_shifted", False),
    "table": set_table,
}
