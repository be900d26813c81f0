"""Run one example with fxkd and with plain PyTorch, and compare all there is."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import FxkdError
from tests.fuzz.example import Call, Example, in_double
from tests.fuzz.probe import batch_of, labels_of, teacher_of
from tests.support.oracle import assert_same, energy, named, seed_everything, snapshot
from tests.support.plain import Plain, Several

RELATIVE, ABSOLUTE = 1e-8, 1e-10  # of float64
EQUAL, FORWARD = "equal", "forward alone, as backward raises with hooks too"


class Refused(Exception):
    """fxkd said that it cannot do this."""


class PlainRaises(Exception):
    """Plain PyTorch cannot do this."""


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
        outcomes = set()
        for number, call in enumerate(example.calls):
            try:
                outcomes.add(pair.step(call, number))
            except DrawsDiffer:
                if not prune:
                    raise
                check(example, prune=False)
                return "equal before pruning"
        pair.check_untouched()
        return FORWARD if FORWARD in outcomes else EQUAL


class DrawsDiffer(AssertionError):
    """The generator of random numbers stands elsewhere."""


@dataclass
class Pair:
    """The same models twice: in a distiller, and for plain PyTorch."""

    example: Example
    distiller: fxkd.Distiller
    plain: Plain

    @classmethod
    def of(cls, example: Example) -> "Pair":
        """Build both, and see that ``prepare`` leaves the student as it was."""
        student, teacher = example.student.build(), teacher_of(example.teachers)
        set_mode(student, example.calls[0].mode)
        own, own_teacher = copy.deepcopy((student, teacher))
        before = state_of(student)
        try:
            distiller = prepared(example, student, teacher)
        except FxkdError as error:
            raise Refused(str(error)) from error
        finally:
            assert_same(before, state_of(student), 0.0, path="what prepare leaves of the student")
        if own_teacher is not None:
            own_teacher.eval().requires_grad_(False)
        parts = copy.deepcopy((distiller.connectors, distiller.losses, distiller.student_loss))
        return cls(example, distiller, Plain(own, own_teacher, example.spec, *parts))

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
        return FORWARD if raised else EQUAL

    def plain_parts(self) -> dict[str, nn.Module]:
        return {"student": self.plain.student, "connectors": self.plain.connectors, "losses": self.plain.losses}

    def fxkd_parts(self) -> dict[str, nn.Module]:
        given = self.distiller
        return {"student": given.student, "connectors": given.connectors, "losses": given.losses}

    def run(self, step: Any, parts: dict[str, nn.Module], call: Call, number: int) -> tuple[dict[str, Any], str]:
        """Run one call; give all that it computes, and what backward raises."""
        (x,), kwargs = inputs_of(self.example, call, number)
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
        teachers, given = self.distiller.teachers, self.plain.teacher
        own = given if isinstance(given, Several) else {} if given is None else {"teacher": given}
        now, before = (named(dict(side), "named_parameters") for side in (teachers, own))
        assert_same(snapshot(before), snapshot(now), 0.0, path="teacher")


def prepared(example: Example, student: nn.Module, teacher: nn.Module | None) -> fxkd.Distiller:
    """Make the distiller of an example."""
    return fxkd.prepare(
        student,
        dict(teacher) if isinstance(teacher, Several) else teacher,
        copy.deepcopy(example.spec),
        example_inputs=None if example.is_lazy else fxkd.Inputs(*inputs_of(example, example.calls[0], 0)),
        verify=False,  # plain PyTorch tells
        return_records=example.return_records,
    )


def inputs_of(example: Example, call: Call, number: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Make the arguments of a call."""
    x = batch_of(example.student, call.size, number).requires_grad_(example.input_gradient)
    return (x,), {"labels": labels_of(call.size, number)} if example.spec["inputs"] else {}


def state_of(student: nn.Module) -> dict[str, Tensor]:
    """Give parameters and buffers as they are."""
    return snapshot(dict([*student.named_parameters(), *student.named_buffers()]))


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
