"""Capture a model by running it: once for real if functions are named, then on fake tensors while it is recorded."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from fxkd import patcher
from fxkd.capture.anew import make_anew
from fxkd.capture.blame import blamed
from fxkd.capture.calls import InsideOneNode
from fxkd.capture.captured import Captured, PointName
from fxkd.capture.discover import Discovery, ValuesNeededError, Watch, discover, discover_without_values
from fxkd.capture.draws import shift_drawn_state
from fxkd.capture.held import held_by, kinds_and_hooks
from fxkd.capture.inputs import Inputs, Layout, split, with_rows
from fxkd.capture.known import Known, Named
from fxkd.capture.lines import drawing_line, is_misfit, quiet_log, raising_line
from fxkd.capture.plan import Plan
from fxkd.capture.preserve import preserved, uncollected, values_put_back
from fxkd.capture.probe import learn_memory, pin, same_program
from fxkd.capture.shared import refuse_shared_writes
from fxkd.capture.sizes import Tries, Verdict
from fxkd.capture.steady import compared_on_other_values, refuse_unsteady
from fxkd.capture.structure import storages
from fxkd.capture.tape import Tape
from fxkd.capture.tidy import tidy
from fxkd.capture.trace import REMEDY, MustOpen, MustSee, explained, trace
from fxkd.errors import CaptureError
from fxkd.points import held_at, original

DEPENDS = {"same": False, "guarded": False, "other": True, "fails": None}  # on what functions happened to give
SMALLER = 0.6875  # what is multiplied by it is exact in any floating point of eight bits or more


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
    with (
        patcher.lock,
        values_put_back(plan.contents),
        uncollected(),
        quiet_log(),
        torch.compiler.set_stance("force_eager"),
        blamed(name, model, inputs, on_values=not sketch),
    ):
        known = _discovered(plan, on_values=not sketch)
        if plan.places and not sketch:
            known.varied = _on_other_values(plan, known)
        tape = _recorded(plan, known, steady=not sketch, on_values=not sketch)
        if not sketch and known.depends is not False:
            _refuse_frozen_draws(plan, known, tape)
        frozen = [] if sketch else _frozen_sizes(plan, known, tape)
    make_anew(tape.graph, tape.constants, tape.written_down)
    tidy(tape.graph)
    refuse_shared_writes(tape.graph, storages([tensor for tensor, _ in tape.attributes.values()]))
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


def _discovered(plan: Plan, before: Known | None = None, *, other_draws: bool = False, on_values: bool = True) -> Known:
    """Say how each named function is kept, which modules must be opened, and what those leaves give that must be seen.

    ``before`` is what was known of the model on other inputs, or before more had to be opened or seen.
    """
    opened = {id(plan.model)} | plan.ancestors() | (before.opened if before else set())
    leaves = {leaf: f"{plan.name}.{plan.paths[leaf]}" for leaf in (before.leaves if before else ())}
    watch = Watch(leaves, frozenset(opened), plan.grad, hanging=plan.contents.hanging)
    found = Discovery()
    if plan.places or watch.leaves:
        with plan.caches.emptied(), preserved(plan.model, values=on_values, contents=plan.contents):
            if other_draws:
                shift_drawn_state()
            places = [place for place, _ in plan.places.values()]
            if on_values:
                found = discover(plan.model, plan.inputs, places, plan.modules.keys(), watch)
            else:
                found = discover_without_values(plan.model, plan.inputs, places, plan.modules.keys())
    functions = []
    for place, points in plan.places.values():
        holds_points, is_unfolded = place.path in found.holders, before is not None and before.is_unfolded(place.path)
        if holds_points and plan.whole.intersection(points):
            raise CaptureError(f"what {place.path!r} gives is replaced, so no point can lie inside it")
        if place.path in found.raised and not (holds_points or is_unfolded):
            raise CaptureError(
                f"{plan.name}: {place.path!r} raises {found.raised[place.path]}, and the model goes on without what it "
                "gives: a graph cannot go two ways: name the function that catches it, or use backend='eager'"
            )
        outcomes = None if holds_points or is_unfolded else found.outcomes[place.path]
        is_replaced = bool(plan.whole.intersection(points))
        functions.append(Named(place, original(place), points, outcomes, is_replaced))
    draws = before is not None and before.draws
    return Known(functions, opened | (found.opened & plan.paths.keys()), found.leaves, draws)


def _recorded(plan: Plan, known: Known, *, steady: bool = False, on_values: bool = True, misfits: bool = True) -> Tape:
    """Record until nothing more must be opened or seen; ``known`` grows.

    ``steady`` checks that the next call is the same; without ``misfits`` a leaf is not run on values to see whether
    sizes that do not fit would.
    """
    first: Tape | None = None
    for _ in range(2 * len(plan.paths) + 3):
        with preserved(plan.model, contents=plan.contents):
            start = plan.drawn()
            try:
                if steady:
                    plan.kinds.clear()  # what functions do beside what they give shows at the next step
                tape = trace(plan, known)
                if plan.drawn() != start:
                    if known.draws:
                        _refuse_draw(plan, known)
                    known.draws = True
                    continue
                if not steady or _is_steady(plan, known, tape, first):
                    return tape
                first = tape
                continue
            except MustOpen as found:
                known.opened |= found.modules
                known.functions = [_unfolded(plan, named, found) for named in known.functions]
            except MustSee as found:
                if not on_values or (not misfits and is_misfit(found.__cause__ or found)):
                    raise _values_needed(plan, found) from found
                known.leaves |= {module: [] for module in found.modules}
        if known.leaves:
            _take_over(known, _discovered(plan, known))
    raise CaptureError("the points cannot be reached although every module is opened; use backend='eager'")


def _is_steady(plan: Plan, known: Known, tape: Tape, first: Tape | None) -> bool:
    """Tell whether the next step is the same program; where that does not show, a recording after the first tells."""
    other = known.on_other_values()
    if first is not None or other is None or tape.written:
        refuse_unsteady(plan, known, tape, first)
        return True
    verdict = compared_on_other_values(plan, other, tape)
    known.depends = DEPENDS[verdict]
    return verdict == "same"


def _unfolded(plan: Plan, named: Named, found: MustOpen) -> Named:
    """Open a named function that fills an object with which the forward goes on."""
    if named.place.path not in found.functions:
        return named
    if plan.whole.intersection(named.points):
        raise CaptureError(
            f"what {named.place.path!r} gives is replaced, and the function also puts tensors into an object with "
            "which the forward goes on, which would then lack them: deliver at another point, or use backend='eager'"
        )
    return replace(named, outcomes=None)


def _take_over(known: Known, other: Known) -> None:
    known.functions, known.opened, known.leaves, known.draws = other.functions, other.opened, other.leaves, other.draws
    known.varied = known.depends = None


def _values_needed(plan: Plan, found: MustSee) -> CaptureError:
    """Say of leaves that do not run without values why it is not known what they give, or that they cannot run."""
    names = ", ".join(sorted(repr(plan.paths[module]) for module in found.modules))
    error = found.__cause__ or found
    if isinstance(error, Exception) and is_misfit(error):
        return explained(plan, error)
    return ValuesNeededError(
        f"what {names} gives is seen only on values, when prepare runs the model: without them it raises "
        f"{type(error).__name__} at {raising_line(error)}"
    )


def _refuse_draw(plan: Plan, known: Known) -> None:
    with preserved(plan.model, contents=plan.contents):
        line = drawing_line(lambda: trace(plan, known), plan.drawn)
    raise CaptureError(
        f"{plan.name}: what a generator of Python's or numpy's random numbers gives at {line} would be the same at "
        f"every step; {REMEDY}"
    )


def _refuse_frozen_draws(plan: Plan, known: Known, tape: Tape) -> None:
    """Check that the graph does not depend on what named functions, and leaves run on values, happened to give."""
    if not plan.places and not known.leaves:
        return
    if known.depends is None:
        try:
            known.varied = known.varied or _on_other_values(plan, known)
            other = _recorded(plan, known.on_other_values() or known)
        except Exception:  # noqa: BLE001 (rows that are no samples)
            other = _recorded(plan, _discovered(plan, known, other_draws=True))
        known.depends = same_program(tape, other) is False
    if known.depends:
        named = [*plan.places, *(plan.paths[leaf] for leaf in known.leaves)]
        raise CaptureError(
            f"{plan.name}: Python code works on what is given by {', '.join(map(repr, named))} in a way that a graph "
            "cannot follow, so that it would be the same at every step: name the function that does this work too, or "
            "use backend='eager'"
        )


def _on_other_values(plan: Plan, known: Known) -> Known:
    """Say what is known on other rows and with other draws; on the same rows where the others are no samples."""
    varied = replace(plan, inputs=with_rows(plan.inputs, _other_values))
    try:
        return _discovered(varied, known, other_draws=True)
    except Exception:  # noqa: BLE001
        return _discovered(plan, known, other_draws=True)


def _other_values(tensor: Tensor) -> Tensor:
    """Give the rows in another order; floating point also smaller, so that sums, largest values and counts differ."""
    flipped = tensor.flip(0)
    return flipped * SMALLER if tensor.is_floating_point() else flipped


def _frozen_sizes(plan: Plan, known: Known, tape: Tape) -> list[tuple[str, int]]:
    """List the sizes of inputs, by name and dimension, for which the graph holds only as they are."""
    names, tensors = plan.layout.names, split(plan.inputs.args, plan.inputs.kwargs)[1]
    tries = Tries(names, tensors, partial(_tried, plan, known, tape), on_values=bool(plan.places or known.leaves))
    with warnings.catch_warnings(action="ignore"):  # of sizes that the model does not take
        return tries.frozen()


def _tried(plan: Plan, known: Known, tape: Tape, tensors: list[Tensor]) -> Verdict:
    """Tell how the graph of other inputs compares."""
    other_plan = replace(plan, inputs=plan.layout.fill(tensors))
    try:
        other = _recorded(other_plan, _discovered(other_plan, known), misfits=False)
    except (LookupError, InsideOneNode):  # Python looked something up by a size; a node calls a point at this size
        return "other"
    except Exception as error:  # noqa: BLE001 (whatever it is: the model does not take this size)
        return "other" if isinstance(error.__cause__, LookupError) else "refused"
    is_same = same_program(tape, other)
    if is_same is False:
        return "other"
    learn_memory(tape.graph, other.graph)
    return "same" if is_same else "guarded"
