"""Every distillation config of MMRazor, a spec in examples/mmrazor, prepared and run on networks with its names."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxkd
from fxkd.teachers import Teachers
from tests.support.oracle import assert_same, read, recording
from tests.support.standins import rows
from tests.support.standins.rows import ROWS, Row

Reach = dict[tuple[str, str], set[str]]  # loss and argument -> names of the parameters that its record hangs on
EVERY = [pytest.param(row, id=row.name, marks=[pytest.mark.slow] * row.slow) for row in ROWS]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small maps gain nothing by threads, and lose much where others want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_file_is_a_row() -> None:
    assert sorted(path.stem for path in rows.FOLDER.glob("*.yaml")) == sorted(row.name for row in ROWS)
    parts = ("_student", "_generator")
    assert len({row.name.removesuffix(parts[0]).removesuffix(parts[1]) for row in ROWS}) == 32


@pytest.mark.parametrize("row", EVERY)
def test_row(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage_one = first_stage(row)
    spec, (student, teacher) = fxkd.Spec.load(row.path), rows.made(row)
    one = Teachers(teacher) if isinstance(teacher, dict) else teacher
    reach = {
        side: reached(model, spec, side, row)
        for side, model in ((True, student), (False, student if one is None else one))
    }
    eager = prepared(row, copy.deepcopy(student), teacher, "eager")
    graph = prepared(row, student, teacher, "graph")
    assert_same(graph.state_dict(), eager.state_dict())
    check_start(graph, stage_one)
    before = copy.deepcopy(dict(graph.named_buffers()))

    by_graph, by_eager = outcome(row, graph), outcome(row, eager)
    assert all(loss.isfinite() for loss in by_graph["losses"].values())
    assert_same(by_graph.pop("gradients"), by_eager.pop("gradients"), 1e-4, atol=1e-6)
    assert_same(by_graph, by_eager, 1e-6)
    check_gradients(row, graph, spec, one, reach)

    by_hand = with_hooks(row, eager, one, spec, before)
    assert_same(dict(by_graph["losses"]), by_hand, 1e-5)
    check_records(row, graph, one, reach, before)


def test_levels_that_are_looked_at() -> None:
    row = next(row for row in ROWS if row.name.endswith("visualization"))
    student, teacher = rows.made(row)
    distiller = fxkd.prepare(student, teacher, row.path, backend="eager", return_records=True)
    levels = distiller(*rows.of_coco(0)).records["student"]["fpn"][0][:4]
    assert [tuple(level.shape) for level in levels] == [(2, 256, side, side) for side in (16, 8, 4, 2)]


# Before


def prepared(row: Row, student: nn.Module, teacher: Any, backend: Any, path: Any = None) -> fxkd.Distiller:
    torch.manual_seed(5)  # connectors and losses draw their weights
    given = pytree.tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.requires_grad), rows.arguments(row))
    how: dict[str, Any] = {"backend": backend, "teacher_mode": row.teacher_mode, "verify": False}
    return fxkd.prepare(student.train(), teacher, path or row.path, example_inputs=given, **how)


def first_stage(row: Row) -> dict[str, Tensor]:
    """Take one step of the stage before, and save it where the config looks for it."""
    if row.after is None:
        return {}
    name, file = row.after
    distiller = prepared(row, *rows.made(row), "graph", rows.FOLDER / f"{name}.yaml")
    optimiser = torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], lr=0.1)
    distiller(*rows.arguments(row)).loss.backward()
    optimiser.step()
    torch.save(distiller.state_dict(), file)
    return {name: value.clone() for name, value in distiller.state_dict().items()}


def check_start(distiller: fxkd.Distiller, stage_one: Mapping[str, Tensor]) -> None:
    """What a stage starts from is what the one before made of it."""
    taken = "student." if distiller.spec.student_ckpt else "connectors."
    found = {name: value for name, value in distiller.state_dict().items() if name.startswith(taken)}
    shared = {name: value for name, value in found.items() if name in stage_one}
    assert_same(shared, {name: stage_one[name] for name in shared})
    assert bool(shared) == bool(stage_one)


def reached(model: nn.Module, spec: fxkd.Spec, is_student: bool, row: Row) -> Reach:
    """Find the parameters behind each record of a side, by autograd."""
    recorders = described(spec.student_recorders if is_student else spec.teacher_recorders)
    names = {parameter: name for name, parameter in model.named_parameters()}
    model.eval()
    with recording(model, recorders) as records:
        model(*rows.arguments(row))
    sides = {"student": records, "teacher": records}
    return {
        (loss, argument): {names[leaf] for leaf in leaves(read(sides, info | {"connector": None}, {})) if leaf in names}
        for loss, mapping in references(spec).items()
        for argument, info in mapping.items()
        if info["from_student"] is is_student
    }


def described(recorders: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {name: {"type": recorder.type, "source": recorder.source} for name, recorder in recorders.items()}


def references(spec: fxkd.Spec) -> dict[str, dict[str, dict[str, Any]]]:
    mappings = spec.loss_forward_mappings.items()
    return {loss: {name: dataclasses.asdict(one) for name, one in mapping.items()} for loss, mapping in mappings}


def leaves(value: Any) -> set[Tensor]:
    """Find the tensors at the ends of the autograd graph of a nested value."""
    todo = [part.grad_fn for part in pytree.tree_leaves(value) if isinstance(part, Tensor)]
    found, seen = set(), set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        todo += [following for following, _ in node.next_functions]
    return found


# One step


def outcome(row: Row, distiller: fxkd.Distiller) -> dict[str, Any]:
    """Call, go back, and collect all that two backends must agree in."""
    generator = rows.generator_of(row.name) if row.generator is not None else None
    if generator is not None:
        generator.zero_grad()
    torch.manual_seed(7)
    out = distiller(*rows.arguments(row))
    out.loss.backward()
    gradients = {name: p.grad for name, p in distiller.named_parameters()}
    if generator is not None:
        gradients |= {f"generator.{name}": copy.deepcopy(p.grad) for name, p in generator.named_parameters()}
    own = None if out.student_loss is None else out.student_loss.detach()
    losses = {name: loss.detach() for name, loss in out.losses.items()}
    buffers = copy.deepcopy(dict(distiller.named_buffers()))
    return {"loss": out.loss.detach(), "own": own, "losses": losses, "gradients": gradients, "buffers": buffers}


def check_gradients(
    row: Row, distiller: fxkd.Distiller, spec: fxkd.Spec, teacher: nn.Module | None, reach: dict[bool, Reach]
) -> None:
    """Gradient reaches every parameter that a record hangs on, every connector, a generator, and never the teacher."""
    wanted = set().union(*reach[True].values()) if spec.student_trainable else set()
    given = {name for name, p in distiller.student.named_parameters() if p.grad is not None}
    assert wanted <= given
    assert bool(given) == bool(wanted or (spec.student_trainable and spec.student_loss))
    for name, connector in distiller.connectors.items():
        trained = [parameter for parameter in connector.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None for parameter in trained), name
        assert not trained or any(parameter.grad.any() for parameter in trained), name  # type: ignore[union-attr]
    for model in (teacher,) if teacher is not None else ():
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    if row.generator is not None:
        assert all(parameter.grad is not None for parameter in rows.generator_of(row.name).parameters())


def with_hooks(
    row: Row, distiller: fxkd.Distiller, teacher: nn.Module | None, spec: fxkd.Spec, before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute the losses by plain hooks on the models: teacher, student, connectors and losses."""
    put_back(distiller, before)
    torch.manual_seed(7)
    given, theirs = rows.arguments(row), described(spec.teacher_recorders)
    student, mine = distiller.student, described(spec.student_recorders)
    with torch.no_grad():
        if teacher is not None:
            with recording(teacher, theirs) as of_teacher:
                teacher(*given)
            with recording(student, mine) as of_student:
                student(*given)
        else:
            with recording(student, mine) as of_student, recording(student, theirs) as of_teacher:
                student(*given)
        records = {"student": of_student, "teacher": of_teacher}
        found = {}
        for loss, mapping in references(spec).items():
            values = {argument: read(records, info, distiller.connectors) for argument, info in mapping.items()}
            found[loss] = distiller.losses[loss](**values).mean()
    return found


def put_back(distiller: fxkd.Distiller, before: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in distiller.named_buffers():
            buffer.copy_(before[name])


# What a loss reads


def check_records(
    row: Row,
    distiller: fxkd.Distiller,
    teacher: nn.Module | None,
    reach: dict[bool, Reach],
    before: Mapping[str, Tensor],
) -> None:
    """Those losses move, and no others, that have a record which hangs on what was changed."""
    expected = losses(row, distiller, before)
    idle = {loss for loss, value in expected.items() if value == 0}
    assert all(distiller.spec.distill_losses[loss]["loss_weight"] == 0 for loss in idle)  # type: ignore[index,call-overload]
    sides = [(distiller.student, reach[True]), (teacher, reach[False])]
    for model, of_side in sides if teacher is not None else [(distiller.student, reach[True] | reach[False])]:
        weights = dict(model.named_parameters())  # type: ignore[union-attr]
        behind = {loss: set().union(*(of_side[key] for key in of_side if key[0] == loss)) for loss in expected}
        trials = [{last} for last in sorted({last_weight(weights, names) for names in of_side.values() if names})]
        for trial in [*trials, weights.keys() - set().union(*behind.values())]:
            with disturbed([weights[name] for name in sorted(trial)]):
                moved = moves(losses(row, distiller, before), expected)
            assert moved == {loss for loss, names in behind.items() if names & trial} - idle, trial
    labelled = {loss for of_side in reach.values() for (loss, _), names in of_side.items() if not names}
    if labelled:
        assert moves(losses(row, distiller, before, samples_of=1), expected) == labelled


def losses(row: Row, distiller: fxkd.Distiller, before: Mapping[str, Tensor], samples_of: int = 0) -> dict[str, float]:
    """Give the losses of the same call with the same state, or with the labels of another call."""
    put_back(distiller, before)
    torch.manual_seed(7)
    given = (rows.arguments(row)[0], *rows.arguments(row, samples_of)[1:])
    return {name: float(loss.detach()) for name, loss in distiller(*given).losses.items()}


def last_weight(weights: Mapping[str, Tensor], names: set[str]) -> str:
    """Choose the last weight that is no bias or scale, to which some losses are blind."""
    return [name for name, weight in weights.items() if name in names and weight.dim() > 1][-1]


def moves(now: Mapping[str, float], before: Mapping[str, float]) -> set[str]:
    return {loss for loss, value in before.items() if abs(now[loss] - value) > 1e-5 * abs(value)}


@contextmanager
def disturbed(weights: list[Tensor]) -> Iterator[None]:
    """Add noise to weights while inside."""
    kept, generator = [weight.detach().clone() for weight in weights], torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights:
            weight += torch.randn(weight.shape, generator=generator) * (weight.std(correction=0) + 0.01)
    yield
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
