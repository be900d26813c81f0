"""What a check found, as data and as a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxkd.cost import Cost
from fxkd.errors import SpecError
from fxkd.shapes import Flow
from fxkd.spec import Reference, Spec
from fxkd.wording import described

CALLS = ("module", "function", "method")
MOST = 12  # how many pruned names are printed


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One argument of a loss.

    Args:
        loss: The loss.
        argument: Which argument of its ``forward``.
        source: Where it comes from: a recorder of the student or of the teacher, or an argument of the call.
        record: The form of the record.
        connector: What it goes through.
        given: The form of what the loss is given.
    """

    loss: str
    argument: str
    source: str
    record: str
    connector: str
    given: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What ``fxkd.check`` found; prints as a table.

    Args:
        problems: What ``prepare`` would refuse, each with its place.
        warnings: What is probably unmeant.
        unseen: What needs values, so that only ``prepare`` sees it.
        pairs: Every argument of every loss with its form.
        costs: Parameters and operations of each part, all and after pruning.
        pruned: The calls that the joint graph leaves out, with their side.
        spec: What was checked, ``auto`` replaced by what was chosen; None if it could not be read.

    >>> report = Report(problems=("pairs: is a str; give a list of pairs",))
    >>> report.ok
    False
    >>> print(report)
    1 problem:
      - pairs: is a str; give a list of pairs
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    costs: tuple[Cost, ...] = ()
    pruned: tuple[str, ...] = ()
    spec: Spec | None = None

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self.problems

    def raise_if_any(self) -> None:
        """Raise what ``prepare`` would.

        Raises:
            SpecError: Every problem.
        """
        if self.problems:
            raise SpecError(self.problems)

    def __str__(self) -> str:
        parts = [
            _listed(self.problems, "problem") or "No problems.",
            _listed(self.warnings, "warning"),
            "\n".join(["Seen on values only:", *(f"  - {text}" for text in self.unseen)]) if self.unseen else "",
            "\n".join(_table(_pair_rows(self.pairs))) if self.pairs else "",
            "\n".join(_table(_cost_rows(self.costs), numbers=True)) if self.costs else "",
            _pruned(self.pruned),
        ]
        return "\n\n".join(part for part in parts if part)


def _listed(texts: Sequence[str], what: str) -> str:
    if not texts:
        return ""
    head = f"{len(texts)} {what}{'' if len(texts) == 1 else 's'}:"
    return "\n".join([head, *(f"  - {text}" for text in texts)])


def _pair_rows(pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    yield "loss", "argument", "from", "record", "connector", "given"
    before = ""
    for pair in pairs:
        name = pair.loss if pair.loss != before else ""
        yield name, pair.argument, pair.source, pair.record, pair.connector, pair.given
        before = pair.loss


def _cost_rows(costs: Sequence[Cost]) -> Iterator[tuple[str, ...]]:
    yield "part", "parameters", "left", "FLOPs", "left"
    for cost in costs:
        yield cost.part, *map(_number, (cost.parameters, cost.parameters_left, cost.flops, cost.flops_left))


def _number(value: int | None) -> str:
    """Write a count with four figures and a unit.

    >>> _number(3_858_000), _number(12), _number(None)
    ('3.858 M', '12', '-')
    """
    if value is None:
        return "-"
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return str(value)


def _table(rows: Iterator[tuple[str, ...]], *, numbers: bool = False) -> Iterator[str]:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if numbers and index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _pruned(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"Pruned: {', '.join(names[:MOST])}{more}"


def pairs_of(flow: Flow) -> tuple[Pair, ...]:
    """List every argument of every loss."""
    return tuple(
        Pair(
            loss=loss,
            argument=name,
            source=_source(argument.reference),
            record=_form(argument.record),
            connector=argument.reference.connector or "",
            given=_form(argument.value),
        )
        for loss, arguments in flow.arguments.items()
        for name, argument in arguments.items()
    )


def _source(reference: Reference) -> str:
    if reference.from_input is not None:
        return f"input {reference.from_input}"
    side = "student" if reference.from_student else "teacher"
    index = f" call {reference.record_idx}" if reference.record_idx else ""
    part = f" [{reference.data_idx!r}]" if reference.data_idx is not None else ""
    return f"{side} {', '.join(reference.recorders)}{index}{part}"


def _form(value: Any) -> str:
    return described(value).removeprefix("a ")


def pruned_names(joint: fx.GraphModule) -> tuple[str, ...]:
    """Name the calls that pruning removed."""
    if "pruned" not in joint.meta:
        return ()
    nodes = [data for _, data in joint.meta["pruned"].nodes(data=True)]
    return tuple(f"{data['side']} {data['label']}" for data in nodes if data.get("kind") in CALLS)
