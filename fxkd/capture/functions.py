"""Named functions and methods while a model is recorded: one node, or opened where points lie inside."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd.capture.boxes import Watched
from fxkd.capture.callables import Kind, callable_in_code, names_read, runs_without_values
from fxkd.capture.calls import InsideOneNode, ModuleCalls
from fxkd.capture.captured import call_inputs
from fxkd.capture.discover import Outcome
from fxkd.capture.draws import drawn_state, set_drawn_state
from fxkd.capture.heard import Names
from fxkd.capture.known import Known, Named
from fxkd.capture.lasting import Lasting
from fxkd.capture.lines import current_line, in_fake_kernel, may_give_nothing, name_in_use
from fxkd.capture.marks import Marks
from fxkd.capture.plan import Plan
from fxkd.capture.recording import quiet
from fxkd.capture.structure import storages, tensors
from fxkd.capture.tape import LeakedTensor
from fxkd.capture.whole import as_whole
from fxkd.capture.whole_calls import keep_objects
from fxkd.errors import CaptureError
from fxkd.patcher import patched
from fxkd.records import bound_arguments, function_inputs


class Calls(ModuleCalls):
    """Write the calls of named functions to the tape too."""

    def __init__(self, marks: Marks, plan: Plan, known: Known, lasting: Lasting) -> None:
        super().__init__(marks, plan, known, lasting)
        self.kinds, self._is_trying = plan.kinds, False
        self._asked: list[tuple[str, Names]] = []

    def wrap_function(self, named: Named) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make what stands for a named function or method."""
        given, own = function_inputs(named.place), bound_arguments(named.place)

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)  # a program may ask for its signature
            def call(*args: Any, **kwargs: Any) -> Any:
                if not self.tape.listening:
                    if not self._is_trying and not in_fake_kernel():
                        self._refuse_unheard(named)
                    return original(*args, **kwargs)
                taken = self.marks.inputs(named.points, call_inputs, (given(args, kwargs), args[own:], kwargs))
                if named.outcomes is None:
                    return self.marks.outputs(named.points, original(*args, **kwargs))
                return self._call_whole(args, kwargs, named, {"takes": taken, "own": own})

            return call

        return wrap

    def _refuse_unheard(self, named: Named) -> None:
        self._refuse_inside_function(named.place.path)
        if not self._inside:
            own = name_in_use(named.function)
            what = f"is called there as {own!r}: name that" if own else "is one node: name the torch function itself"
            raise InsideOneNode(
                f"{named.place.path!r} is called inside a torch function at {current_line()}, which {what}, or use "
                "backend='eager'"
            )
        self.must_open.update(map(id, self._inside))

    def _call_whole(self, args: Any, kwargs: Any, named: Named, notes: dict[str, Any]) -> Any:
        """Keep the function as one node: its body runs at every step, never while it is recorded."""
        path, function = named.place.path, named.function
        kind = self._kind(named, args, kwargs)
        outcome, given = self._outcome(named), tensors((args, kwargs))
        if not named.is_replaced:
            self._refuse_set(named, outcome, args, kwargs)
            self._refuse_filled(path, outcome)
        notes["by_values"] = path if kind.needs_values else ""
        keep_objects((args, kwargs))
        self.tape.taker = path
        node = self.tape.emit(callable_in_code(function) if kind.is_plain else as_whole(function, path), args, kwargs)
        self.tape.taker = None
        shared = storages([given[index] for index in outcome.viewed])
        with quiet(self.tape):
            taken = tensors(self.marks.given(named.points, (args, kwargs)))
            value = outcome.replay(taken, self.tape.mode, self.alone)
        node.meta.update(
            function=named.place.path,
            mutates=storages([given[index] for index in outcome.changed]),
            storages=storages(value) | shared,
            stateful=True,
            **notes,
        )
        has_form = kind.needs_values or isinstance(value, (tuple, list, Mapping))
        if has_form:
            self.marks.guard_form(value, node)
        seen = self.marks.bind_call(value, node, named.points)
        if not has_form:
            self.marks.guard_nothing(value, node, may_be=kind.may_give_nothing)
        if named.is_replaced:
            return seen
        self.tape.unseen.update(dict.fromkeys(outcome.sets, partial(self._open_read, path)))
        self.tape.unseen_below.update(dict.fromkeys(map(id, outcome.objects), partial(self._open_read, path)))
        with quiet(self.tape):
            return outcome.boxes.put_back(seen, args, kwargs)

    def _open_read(self, path: str, name: str) -> NoReturn:
        self._open(
            path,
            f"{path!r} sets {name!r}, which the forward reads after that: a graph would go on with what was there when "
            "it was captured",
        )

    def _open(self, path: str, reason: str) -> NoReturn:
        """Open a function that cannot be one node, or say why where its body must run at every step.

        Raises:
            LeakedTensor: It runs without values, and draws nothing.
            CaptureError: It does not.
        """
        if self.kinds[path].is_plain:
            raise LeakedTensor(path)
        raise CaptureError(f"{reason}; name another point, or use backend='eager'")

    def _outcome(self, named: Named) -> Outcome:
        """Tell what a function gives in this call."""
        path, outcomes = named.place.path, named.outcomes or []
        count = self._count(path)
        if count >= len(outcomes):
            raise CaptureError(f"{path!r} was called {len(outcomes)} times in one run and more in another")
        return outcomes[count]

    def _count(self, path: str) -> int:
        return sum(1 for node in self.tape.graph.nodes if node.meta.get("function") == path)

    def refuse_fewer(self, functions: list[Named]) -> None:
        """Refuse a program that calls a named function less often here than in the run on values."""
        for named in functions:
            path, seen = named.place.path, len(named.outcomes or ())
            if (count := self._count(path)) < seen:
                raise CaptureError(
                    f"{path!r} is called {seen} times in a run on values, and {count} times when the model is recorded "
                    "on tensors without values: the program asks which of both it is; name another point, or use "
                    "backend='eager'"
                )

    def _kind(self, named: Named, args: Any, kwargs: Any) -> Kind:
        """Tell what a function does that fake tensors do not show."""
        path = named.place.path
        if path not in self.kinds:
            drawn, own_drawn = drawn_state(), self.generators.states()
            self._is_trying = True
            watched = Watched(args, kwargs)
            with quiet(self.tape), self.lasting.noted() as changed:
                given = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
                runs, moved = runs_without_values(named.function, *given), drawn_state() != drawn
                watched.undo()
            for module in changed:
                self.parts.note_own(module)
            draws = runs and moved
            self.kinds[path] = Kind(draws, not runs, draws or may_give_nothing(named.function))
            self._is_trying = False
            set_drawn_state(drawn)
            self.generators.put_back(own_drawn)
        return self.kinds[path]

    def _refuse_set(self, named: Named, outcome: Outcome, args: Any, kwargs: Any) -> None:
        """Refuse a call on what the forward has set something in: the function would not find it at the next call."""
        own = [module for module in (*args, *kwargs.values()) if isinstance(module, nn.Module)]
        possible = {(id(module), name): module for module in own for name in names_read(named.function)}
        self._asked.append((named.place.path, outcome.reads | possible))
        objects = self.lasting.set_in((args, kwargs))
        found = [*self.lasting.set_among(self._asked[-1][1]), *(f"an object {name!r}" for name in objects)]
        if found:
            self._open(named.place.path, _told_set(found, f"before it calls {named.place.path!r}, which reads it"))

    def refuse_set(self) -> None:
        """Refuse what the forward set after a call of a function that reads it: it finds it at the next."""
        for path, reads in self._asked:
            if found := self.lasting.set_among(reads):
                self._open(path, _told_set(found, f"after it calls {path!r}, which reads it at the next call"))

    def _refuse_filled(self, path: str, outcome: Outcome) -> None:
        """Refuse a call that changes a container of the program's: the graph gives it another."""
        if outcome.boxes.filled:
            kinds = ", ".join(outcome.boxes.filled)
            self._open(
                path,
                f"{path!r} changes what it is given ({kinds}), which a graph does not see: let it give back what it "
                "makes",
            )


def _told_set(names: list[str], when: str) -> str:
    return f"the forward sets {', '.join(names)} {when}: a graph would not set it again"


@contextmanager
def recorded_calls(calls: Calls, functions: list[Named]) -> Iterator[None]:
    """Let ``calls`` stand for module calls, custom autograd functions and the named functions."""
    with ExitStack() as stack:
        stack.enter_context(patched(nn.Module, "__call__", calls.wrap_module_call))
        stack.enter_context(patched(nn.Module, "_apply", calls.wrap_conversion))
        stack.enter_context(patched(torch.autograd.Function, "apply", calls.wrap_apply))
        for named in functions:
            stack.enter_context(patched(named.place.owner, named.place.name, calls.wrap_function(named)))
        yield
