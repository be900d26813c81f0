"""One run of a model, as a recipe needs it: which module called which, on what, with what result."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fxkd import patcher
from fxkd.capture import Inputs
from fxkd.capture.structure import tensors
from fxkd.observe import in_mode
from fxkd.patcher import patched
from fxkd.watch import run_once


@dataclass(eq=False, slots=True)
class Call:
    """One call of a module.

    Args:
        module: What was called.
        path: Its path in the model.
        index: Which of its calls it is, from 0.
        args: The positional arguments.
        given: The tensors among all arguments.
        after: How many layers in a row, at most, made what it was given.
        value: What it gave.
        inside: The calls that it made, in order.
    """

    module: nn.Module
    path: str
    index: int
    args: tuple[Any, ...]
    given: list[Tensor]
    after: int
    value: Any = None
    inside: list["Call"] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor that it gave, or nothing."""
        return tuple(self.value.shape) if isinstance(self.value, Tensor) else ()

    def all_inside(self) -> Iterator["Call"]:
        """Yield every call below, in order."""
        for call in self.inside:
            yield call
            yield from call.all_inside()


@dataclass(frozen=True, slots=True)
class Seen:
    """A model and one run of it.

    Args:
        side: ``"student"`` or ``"teacher"``.
        model: The model.
        root: Its call.
        image: Height and width of the first image among the inputs, if there is one.
        prefix: What a spec writes before each path: the teacher's name and a dot, if it is given by name.
    """

    side: str
    model: nn.Module
    root: Call
    image: tuple[int, int] | None
    prefix: str = ""

    def find(self, path: str, index: int = 0) -> Call | None:
        """Give one call of the module at ``path``, by any of its names."""
        module = dict(self.model.named_modules(remove_duplicate=False)).get(path)
        calls = [call for call in (self.root, *self.root.all_inside()) if call.module is module]
        return calls[index] if -len(calls) <= index < len(calls) else None


def look(side: str, model: nn.Module, inputs: Inputs, prefix: str = "") -> Seen:
    """Run a model once, without values if it can; it is left as it was. A teacher runs in eval mode.

    Raises:
        CaptureError: The model does not run on the inputs; says where.

    >>> import torch
    >>> seen = look("student", nn.Sequential(nn.Linear(4, 2), nn.ReLU()), Inputs((torch.zeros(3, 4),)))
    >>> [(call.path, call.shape) for call in seen.root.inside]
    [('0', (3, 2)), ('1', (3, 2))]
    """
    watcher = _Watcher({id(module): path for path, module in reversed(list(model.named_modules()))})
    mode = in_mode(model, nn.Module.eval if side == "teacher" else _as_it_is)
    with mode, patcher.lock, patched(nn.Module, "__call__", watcher.wrap):
        run_once(model, inputs)
    sizes = [tensor.shape for tensor in tensors((inputs.args, inputs.kwargs)) if tensor.dim() == 4]
    image = (int(sizes[0][2]), int(sizes[0][3])) if sizes else None
    return Seen(side, model, watcher.roots[-1], image, prefix)


def _as_it_is(model: nn.Module) -> None:
    """Leave the mode."""


class _Watcher:
    """Build the tree of calls; each run of the model begins a new one."""

    def __init__(self, paths: Mapping[int, str]) -> None:
        self.paths, self.roots = paths, list[Call]()
        self._open: list[Call] = []
        self._counts: dict[int, int] = {}
        self._made: dict[int, tuple[Tensor, int]] = {}  # the tensors live, so that no other has their identity
        self._longest = 0

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(module) not in self.paths or (not self._open and self.paths[id(module)]):
                return original(module, *args, **kwargs)
            one = self._begin(module, args, kwargs)
            try:
                one.value = original(module, *args, **kwargs)
            finally:
                self._open.pop()
            if not one.inside:
                self._keep(one)
            return one.value

        return call

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        if not self._open:
            self._counts, self._made, self._longest = {}, {}, 0
        index = self._counts.get(id(module), 0)
        self._counts[id(module)] = index + 1
        given = tensors((args, kwargs))
        for tensor in given:  # what no layer gave, such as a sum, comes after all layers so far
            self._made.setdefault(id(tensor), (tensor, self._longest))
        after = max((self._made[id(tensor)][1] for tensor in given), default=self._longest)
        one = Call(module, self.paths[id(module)], index, args, given, after)
        (self._open[-1].inside if self._open else self.roots).append(one)
        self._open.append(one)
        return one

    def _keep(self, one: Call) -> None:
        self._longest = max(self._longest, one.after + 1)
        self._made |= {id(tensor): (tensor, one.after + 1) for tensor in tensors(one.value)}


def inputs_of(example_inputs: Any, names: tuple[str, ...]) -> Inputs:
    """Read the example inputs, without those that are for the losses alone."""
    inputs = Inputs.of(example_inputs[0] if isinstance(example_inputs, list) and example_inputs else example_inputs)
    return Inputs(inputs.args, {name: value for name, value in inputs.kwargs.items() if name not in names})
