"""Capture a model by running it: once for real if functions are named, then on fake tensors while it is recorded."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from fxkd import patcher
from fxkd.capture.anew import make_anew
from fxkd.capture.attributes import REMEDY as WRITTEN
from fxkd.capture.blame import blamed
from fxkd.capture.calls import Named
from fxkd.capture.captured import Captured, PointName
from fxkd.capture.discover import Discovery, discover, discover_without_values
from fxkd.capture.held import held_by, kinds_and_hooks
from fxkd.capture.inputs import Inputs, Layout, split
from fxkd.capture.lines import drawing_line
from fxkd.capture.plan import Plan
from fxkd.capture.preserve import preserved, shift_drawn_state
from fxkd.capture.probe import (
    grown,
    learn_memory,
    made_anew,
    other_objects,
    other_sizes,
    pin,
    quiet_log,
    same_program,
    size_classes,
)
from fxkd.capture.tape import Tape
from fxkd.capture.tidy import tidy
from fxkd.capture.trace import REMEDY, MustOpen, trace
from fxkd.errors import CaptureError
from fxkd.points import held_at, original

FILLED = (
    "and gives it to a module that is one node; it cannot be copied, so a graph cannot do that again: let the model do "
    "without it (transformers: use_cache=False), or use backend='eager'"
)


def capture(
    model: nn.Module,
    inputs: Inputs,
    *,
    name: str = "model",
    points: Iterable[PointName] = (),
    whole: Iterable[PointName] = (),
    grad: bool = True,
    layout: Layout | None = None,
    sketch: bool = False,
) -> Captured:
    """Capture ``model`` as a graph in which every named point can be found.

    The model is left as it was, and so are the random generators and the grad mode, also when capture fails.

    Args:
        model: Any module; it is run, in the mode it is in.
        inputs: Example arguments. Their tensors become placeholders of free size.
        name: First part of the targets: the attribute under which the model will hang.
        points: The places to find again.
        whole: Those of them that stay one node because another value will take their place.
        grad: Whether the graph will run with gradients (a student) or without (a teacher).
        layout: How the placeholders are named; by default by the model's own arguments.
        sketch: Run nothing on values, named functions included, and record once alone, without another step, other
            sizes and other draws: the graph shows what there is, and is not to be run.

    Raises:
        CaptureError: The model does what a graph cannot hold; says where, and what to do.
        ValuesNeededError: A sketch met a named function that does not run without values.
        PointError: A point is not in the model or the program.

    >>> captured = capture(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), Inputs((torch.zeros(3, 4),)))
    >>> [node.name for node in captured.graph.nodes]
    ['input_1', 'guard_shape', 'model_0', 'model_1', 'output']
    """
    layout = layout or Layout.of(inputs, model)
    plan = Plan.of(model, inputs, layout, name, tuple(dict.fromkeys(points)), frozenset(whole), grad)
    with patcher.lock, torch.compiler.set_stance("force_eager"), blamed(name, model, inputs, on_values=not sketch):
        functions, opened = _discovered(plan, on_values=not sketch)
        tape = _recorded(plan, functions, opened, steady=not sketch)
        if not sketch:
            _refuse_frozen_draws(plan, opened, tape)
        frozen = [] if sketch else _frozen_sizes(plan, opened, tape)
    make_anew(tape.graph, tape.constants, tape.written_down)
    tidy(tape.graph)
    pin(tape.graph, frozen)
    return Captured(
        name=name,
        graph=tape.graph,
        constants=tape.constants,
        flags=tuple((module, module.training) for module in model.modules()),
        held=held_by(tape.reads),
        surroundings=kinds_and_hooks(model.modules()),
        kept=tape.attributes,
        functions=tuple((place, held_at(place)) for place, _ in plan.places.values()),
        notes=tuple(tape.notes),
    )


def _discovered(plan: Plan, *, other_draws: bool = False, on_values: bool = True) -> tuple[list[Named], set[int]]:
    """Say how each named function is kept, and which modules must be opened."""
    opened = {id(plan.model)} | plan.ancestors()
    found = Discovery()
    if plan.places:
        with preserved(plan.model, values=on_values):
            if other_draws:
                shift_drawn_state()
            places = [place for place, _ in plan.places.values()]
            run = discover if on_values else discover_without_values
            found = run(plan.model, plan.inputs, places, plan.modules.keys())
    functions = []
    for place, points in plan.places.values():
        holds_points = place.path in found.holders
        if holds_points and plan.whole.intersection(points):
            raise CaptureError(f"what {place.path!r} gives is replaced, so no point can lie inside it")
        outcomes = None if holds_points else found.outcomes[place.path]
        functions.append(Named(place, original(place), points, outcomes))
    return functions, opened | (found.opened & plan.paths.keys())


def _recorded(plan: Plan, functions: list[Named], opened: set[int], *, steady: bool = False) -> Tape:
    """Record until nothing more must be opened; ``opened`` grows. ``steady`` checks that the next call is the same."""
    for _ in range(len(plan.paths) + 1):
        with preserved(plan.model, values=False):
            start = plan.drawn()
            try:
                tape = trace(plan, functions, opened)
                if plan.drawn() != start:
                    _refuse_draw(plan, functions, opened)
                if steady:
                    _refuse_unsteady(plan, functions, opened, tape)
            except MustOpen as found:
                opened |= found.modules
                continue
            return tape
    raise CaptureError("the points cannot be reached although every module is opened; use backend='eager'")


def _refuse_unsteady(plan: Plan, functions: list[Named], opened: set[int], tape: Tape) -> None:
    """Run once more on what the first run left behind: the next step must be the same program."""
    again = trace(plan, functions, opened, tape.mode)
    names = ", ".join(map(repr, tape.written))
    if not same_program(tape, again):
        made = ", ".join(other_objects(tape, again))
        if made:
            raise CaptureError(f"{plan.name}: the forward makes {made} at each call, {FILLED}")
        what = f"reads and changes {names}" if names else "does something else at the second call than at the first"
        raise CaptureError(f"{plan.name}: the forward {what}; {WRITTEN}")
    tape.written_down = made_anew(tape, again)
    for key in tape.written_down:
        tape.note_anew(key)
    if names:
        tape.notes.append(f"the forward changes {names}, on which nothing in the graph depends; the graph does not")


def _refuse_draw(plan: Plan, functions: list[Named], opened: set[int]) -> None:
    with preserved(plan.model, values=False):
        line = drawing_line(lambda: trace(plan, functions, opened), plan.drawn)
    raise CaptureError(
        f"{plan.name}: what a generator of Python's or numpy's random numbers gives at {line} would be the same at "
        f"every step; {REMEDY}"
    )


def _refuse_frozen_draws(plan: Plan, opened: set[int], tape: Tape) -> None:
    """Check that the graph does not depend on what named functions happened to give."""
    if not plan.places:
        return
    functions, _ = _discovered(plan, other_draws=True)
    other = _recorded(plan, functions, set(opened))
    if not same_program(tape, other):
        raise CaptureError(
            f"{plan.name}: Python code works on what a named function gives ({', '.join(map(repr, plan.places))}) in a "
            "way that a graph cannot follow, so that it would be the same at every step: name the function that does "
            "this work too, or use backend='eager'"
        )


def _frozen_sizes(plan: Plan, opened: set[int], tape: Tape) -> list[tuple[str, int]]:
    """List the sizes of inputs, by name and dimension, for which the graph holds only as they are."""
    classes = size_classes(plan.layout.names, split(plan.inputs.args, plan.inputs.kwargs)[1])
    with quiet_log():
        return [place for places in classes if _is_frozen(plan, opened, tape, places) for place in places]


def _is_frozen(plan: Plan, opened: set[int], tape: Tape, places: list[tuple[str, int]]) -> bool:
    """Tell whether the graph is another one, or none, where the inputs have another size in ``places``."""
    names, tensors = plan.layout.names, split(plan.inputs.args, plan.inputs.kwargs)[1]
    size = tensors[names.index(places[0][0])].shape[places[0][1]]
    taken = False
    for other_size in other_sizes(size, is_batch=places[0][1] == 0, on_values=bool(plan.places)):
        other_plan = replace(plan, inputs=plan.layout.fill(grown(names, tensors, places, other_size)))
        try:
            functions, _ = _discovered(other_plan)
            other = _recorded(other_plan, functions, set(opened))
        except LookupError:  # Python looked something up by a size
            return True
        except Exception as error:  # noqa: BLE001 (whatever it is: the model does not take this size)
            if isinstance(error.__cause__, LookupError):
                return True
            continue
        taken = True
        if not same_program(tape, other):
            return True
        learn_memory(tape.graph, other.graph)
    return not taken
