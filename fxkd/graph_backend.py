"""Run steps as graphs: find the program for a call, capture one where there is none, never run a wrong one."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxkd.capture import Inputs, split
from fxkd.capture.contents import Contents, content_of, refill, same_content, view_of
from fxkd.capture.draws import random_states, set_random_states
from fxkd.capture.preserve import put_back_values
from fxkd.capture.whole_sites import undecided
from fxkd.errors import CaptureError, FxkdError, GuardError
from fxkd.gradients import gradient
from fxkd.passes.protect_records import clone
from fxkd.program import Program, sizes

MOST_PROGRAMS = 32
MOST_CAPTURES = 64
SELDOM = 8  # more captures than that are fine where that many steps lie between them
REPLAYED = ("reduce-overhead", "max-autotune")  # modes of torch.compile that replay CUDA graphs


TRACING_GRADIENTS = torch._dynamo.config.patch(trace_autograd_ops=True)  # a gradient at a point is part of the graph


class GraphBackend:
    """The programs of a distiller.

    Args:
        build: Captures a program for the inputs it is given, and for what the losses are given besides.
        student: The model whose state must not move twice when a program turns out to be the wrong one.
        compile_options: Arguments of ``torch.compile`` for each program, or None to run it in eager mode.
        teachers: Models that run too, whose state must not move twice either.
    """

    def __init__(
        self,
        build: Callable[[Inputs, Mapping[str, Tensor]], Program],
        student: nn.Module,
        compile_options: dict[str, Any] | None,
        teachers: tuple[nn.Module, ...] = (),
    ) -> None:
        self.build, self.student, self.compile_options, self.teachers = build, student, compile_options, teachers
        self.programs: list[Program] = []
        self.captures = self.steps = 0
        self.is_replayed = compile_options is not None and replays(compile_options)
        self.is_plain, self.may_capture = False, True
        self.holders: list[Any] | None = None

    def uncompiled(self, *, may_capture: bool) -> "GraphBackend":
        """Give a backend that runs the same programs as they are, and captures others only if it may."""
        plain = copy.copy(self)
        plain.is_plain, plain.may_capture = True, may_capture
        return plain

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def capture(self, inputs: Inputs, extra: Mapping[str, Tensor]) -> Program:
        """Capture a program for ``inputs`` and ``extra``, which the losses alone are given, and keep it."""
        if self.captures >= max(MOST_CAPTURES, self.steps / SELDOM):
            raise CaptureError(self._too_many())
        self.captures += 1
        program = self.build(inputs, extra)
        for known in self.programs:
            code, hooks = known.module.code, known.situations[-1].hooks
            if known.take_in(program):
                same = known.module.code == code and program.situations[0].hooks == hooks
                return known if same else self._compile(known)
        if len(self.programs) == MOST_PROGRAMS:
            del self.programs[0]  # the oldest; captured again if it comes back
        self.programs.append(program)
        return self._compile(program)

    def _too_many(self) -> str:
        sides = self.programs[-1].situations[-1].sides
        changed = sorted({name for side in sides for name in side.changed()})
        held = f"; since the last capture {', '.join(map(repr, changed))} changed" if changed else ""
        return (
            f"the models were captured {self.captures} times already: what a call is made of (arguments, numbers, "
            f"sizes that decide what is run, modes, attributes of modules) changes too often{held}. Give tensors or "
            "buffers in place of changing numbers, or use backend='eager'"
        )

    def _compile(self, program: Program) -> Program:
        if self.compile_options is not None:
            program.module.recompile()  # new code: what torch.compile made of the old, with other hooks, is not used
            compiled = torch.compile(program.module, **self.compile_options)
            taken = [node for node in program.module.graph.nodes if node.target is gradient]
            if not all(keep for _, _, keep, _ in (node.args for node in taken)):
                raise CaptureError(
                    "torch.compile cannot take the gradient at a point of a frozen model (ModuleGradients of the "
                    "teacher): use compile=False, or let the teacher train"
                )
            program.compiled = TRACING_GRADIENTS(compiled) if taken else compiled
        return program

    def step(self, args: tuple[Any, ...], kwargs: dict[str, Any], extra: dict[str, Tensor]) -> dict[str, Any]:
        """Run the models, the losses and all between on one call."""
        spec, tensors, constants = split(args, kwargs)
        values = [*tensors, *extra.values()]
        fitting = [program for program in self.programs if program.fits(spec, tensors, constants)]
        if torch.compiler.is_compiling():
            return _only(fitting).module(*values)  # type: ignore[no-any-return]
        self.steps += 1
        given = sizes(tensors)
        for program in fitting:
            if given in program.seen and program.is_certain:
                return self._run(program, values)
        refused: GuardError | None = None
        for program in fitting:
            attempt = self._try(program, values)
            if attempt.result is not None:
                program.seen.add(given)
                return attempt.result
            refused = attempt.refused
        if not self.may_capture:
            raise refused or GuardError("no graph that was captured is for this call")
        attempt = self._try(self.capture(Inputs(args, kwargs), extra), values)
        if attempt.result is None:
            raise drawn_decision(attempt.refused)
        return attempt.result

    def _try(self, program: Program, values: list[Tensor]) -> "Attempt":
        models = (self.student, *self.teachers)
        if program.may_set and self.holders is None:
            self.holders = holders_of(*models)
        with undone_on_guard(*models, holders=(self.holders or ()) if program.may_set else ()) as attempt:
            attempt.result = self._run(program, values)
        return attempt

    def _run(self, program: Program, values: list[Tensor]) -> dict[str, Any]:
        """Run a program; the grad mode is afterwards what it was, also if a model raises while it is off."""
        grad = torch.is_grad_enabled()
        try:
            if program.compiled is None or self.is_plain:
                return program.module(*values)  # type: ignore[no-any-return]
            result = self._run_compiled(program, values)
            return clone(result) if self.is_replayed else result  # type: ignore[no-any-return]
        finally:
            torch.set_grad_enabled(grad)

    def _run_compiled(self, program: Program, values: list[Tensor]) -> Any:
        """Run what torch.compile made, and say in our own words what it cannot do with functions run on values."""
        try:
            return program.compiled(*values)
        except Exception as error:
            own = own_reason(error, program.module.graph)
            if own is None or own is error:
                raise
            raise own from error


def own_reason(error: Exception, graph: fx.Graph) -> Exception | None:
    """Give the error of fxkd's own behind one of torch.compile, or say that sizes that values decide are behind it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, FxkdError):
            return found
        found = found.__cause__ or found.__context__
    names = sorted({repr(node.meta["by_values"]) for node in graph.nodes if node.meta.get("by_values")})
    if not names or "data-dependent" not in str(error):
        return None
    return CaptureError(undecided(", ".join(names)))


def replays(compile_options: dict[str, Any]) -> bool:
    """Tell whether results will lie in the memory of a CUDA graph, which its next replay overwrites.

    >>> replays({"mode": "reduce-overhead"}), replays({"options": {"triton.cudagraphs": True}}), replays({})
    (True, True, False)
    """
    options = compile_options.get("options") or {}
    asked = compile_options.get("mode") in REPLAYED or compile_options.get("backend") == "cudagraphs"
    return asked or bool(options.get("triton.cudagraphs"))


def drawn_decision(error: GuardError | None) -> CaptureError:
    """Say that no graph can be right: what it goes by is another thing at each call."""
    return CaptureError(
        f"{error}. The graph was captured on this very call: a drawn or computed value decides what is run, so that no "
        "graph is right for long: use backend='eager'"
    )


class Attempt:
    """The result of a try, or what refused it."""

    result: dict[str, Any] | None = None
    refused: GuardError | None = None


def holders_of(*models: nn.Module) -> list[Any]:
    """List the modules of some models, and the objects that hang on them: where named functions may keep state."""
    return [holder for model in models for holder in (*model.modules(), *Contents(model).hanging)]


@contextmanager
def undone_on_guard(*models: nn.Module, holders: Iterable[Any] = ()) -> Iterator[Attempt]:
    """Put back buffers, random states and what ``holders`` hold if a guard fails inside, and go on after the block."""
    kept = [(holder, content_of(holder)) for holder in holders]
    plain = [part for _, content in kept if isinstance(content, dict) for part in content.values()]
    written = [*(part for part in plain if isinstance(part, Tensor)), *(b for model in models for b in model.buffers())]
    buffers = [(buffer, buffer.detach().clone()) for buffer in written if not buffer.requires_grad]
    states, attempt = random_states(), Attempt()
    try:
        yield attempt
    except GuardError as error:
        attempt.refused = error
        set_random_states(states)
        for holder, content in kept:
            if not same_content(view_of(holder), content):
                refill(holder, content)
        put_back_values(buffers)


def _only(fitting: list[Program]) -> Program:
    """Choose the program inside a compiled region, where none can be captured and no other can be tried."""
    if not fitting:
        raise CaptureError(
            "this call was not captured, and nothing can be captured inside torch.compile: call the distiller once "
            "outside of it, in the same mode with the same form of arguments, or give example_inputs to prepare"
        )
    return fitting[0]
