"""The next step must be the same program, also on other values: one more recording, on what the first left behind."""

from typing import Literal

from torch import fx

from fxkd.capture.attributes import REMEDY as WRITTEN
from fxkd.capture.known import Known
from fxkd.capture.plan import Plan
from fxkd.capture.probe import made_anew, other_objects, same_program
from fxkd.capture.tape import MadeUnseen, Tape
from fxkd.capture.trace import trace
from fxkd.errors import CaptureError

FILLED = (
    "and gives it to what is one node here; a graph cannot do that again, as nobody knows what else holds the object: "
    "let the model do without it (transformers: use_cache=False), or use backend='eager'"
)
ANOTHER = "does something else at the second call than at the first"


def compared_on_other_values(plan: Plan, other: Known, tape: Tape) -> Literal["same", "guarded", "other", "fails"]:
    """Run once more on what the first run left behind, with what functions give of other values.

    One run tells that the next step is the same program, and that it does not depend on those values. A guard may end
    the comparison before that is known; and what fails does not tell why.
    """
    try:
        again = trace(plan, other, tape.mode)
    except Exception:  # noqa: BLE001 (rows that are no samples, or a step that is another)
        return "fails"
    is_same = same_program(tape, again)
    if is_same:
        _note_anew(tape, again)
        return "same"
    return "guarded" if is_same is None else "other"


def refuse_unsteady(plan: Plan, known: Known, tape: Tape, before: Tape | None = None) -> None:
    """Run once more on what the first run left behind: the next step must be the same program.

    ``before`` is an earlier recording of this very one, which must be the same too.
    """
    if before is not None and not same_program(before, tape):
        raise CaptureError(f"{plan.name}: the forward {ANOTHER}; {WRITTEN}")
    try:
        again = trace(plan, known, tape.mode)
    except MadeUnseen as error:
        raise CaptureError(
            f"{plan.name}: the forward keeps something for its next call: {error.what}. If that is made once, call the "
            "model once in this mode, under torch.no_grad(), so that it is there before; or use backend='eager'"
        ) from error
    except CaptureError as error:
        raise CaptureError(f"{plan.name}: the forward does something else at the second call: {error}") from error
    names = ", ".join(map(repr, tape.written))
    if read := [node.target for node in tape.graph.nodes if node.op == "get_attr" and _is_written(tape, node)]:
        names = ", ".join(repr(str(target).partition(".")[2]) for target in read)
        raise CaptureError(f"{plan.name}: the forward reads and changes {names}; {WRITTEN}")
    if not same_program(tape, again):
        made = ", ".join(other_objects(tape, again))
        if made:
            raise CaptureError(f"{plan.name}: the forward makes {made} at each call, {FILLED}")
        what = f"reads and changes {names}" if names else ANOTHER
        raise CaptureError(f"{plan.name}: the forward {what}; {WRITTEN}")
    _note_anew(tape, again)
    if names:
        tape.notes.append(f"the forward changes {names}, on which nothing in the graph depends; the graph does not")


def _note_anew(tape: Tape, again: Tape) -> None:
    tape.written_down = made_anew(tape, again)
    for key in tape.written_down:
        tape.note_anew(key)


def _is_written(tape: Tape, node: fx.Node) -> bool:
    """Tell whether a node gives a tensor of the model's that the forward puts another in the place of."""
    return any(node.target == f"{tape.name}.{where}" for where in tape.written)
