"""Values inside one model: a module that returns them beside the model's own output."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fxkd.capture import Inputs, Layout, capture, split
from fxkd.checks import Ran, check_path, check_records, point_of
from fxkd.errors import Problems, SpecError
from fxkd.graph_backend import GraphBackend
from fxkd.passes import InsertLosses, InsertRecords, ProtectRecords, join, run
from fxkd.passes.join import Side
from fxkd.program import Program, Situation, context, sizes
from fxkd.spec.vocabulary import Recorder, read_recorder

Recorders = Mapping[str, Any] | Iterable[str]


def record(model: nn.Module, recorders: Recorders, example_inputs: Any = None) -> "Recorded":
    """Make a module that runs ``model`` and returns ``(output, records)``; the model is not touched.

    Args:
        model: Any module; ``recorded.model`` is this very object.
        recorders: Name -> a recorder as in a spec (``{"type": "MethodOutputs", "source": ...}``), or the path of a
            module; or paths of modules alone, which are their names too.
        example_inputs: Arguments of the model: a tuple of positionals, a dict of keywords, ``fxkd.Inputs`` or one
            tensor. With them it is captured and checked now, without at the first call.

    Returns:
        A module; its records are ``{name: [value of each call]}``, with gradients.

    Raises:
        SpecError: All problems of the recorders in one report.
        CaptureError: The model does what a graph cannot hold.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True))
    >>> output, records = record(model, {"before": "0"})(torch.ones(2, 4))
    >>> bool(torch.equal(records["before"][0].relu(), output))
    True
    """
    problems = Problems()
    if not isinstance(model, nn.Module):
        raise SpecError([f"model: is a {type(model).__name__}; give an nn.Module"])
    read = _read(recorders, problems)
    for name, recorder in read.items():
        if recorder.is_of_gradients:
            problems.add(f"recorders.{name}.type", "a gradient is that of a loss; fxkd.record has none")
        check_path(model, point_of(recorder), f"recorders.{name}.source", problems)
    problems.raise_if_any()
    recorded = Recorded(model, read)
    if example_inputs is not None:
        recorded.capture(Inputs.of(example_inputs))
    return recorded


class Recorded(nn.Module):
    """A model whose calls return ``(output, records)``; made by ``fxkd.record``."""

    def __init__(self, model: nn.Module, recorders: Mapping[str, Recorder]) -> None:
        super().__init__()
        self.model, self.recorders = model, dict(recorders)
        self.training = model.training
        self._running: GraphBackend | None = None

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, list[Any]]]:
        """Run the model."""
        result = self._steps().step(args, kwargs, {})
        return result["output"], result["records"]["model"]

    def capture(self, inputs: Inputs) -> None:
        """Capture the model now, in the mode it is in."""
        self._steps().capture(inputs, {})

    def _steps(self) -> GraphBackend:
        if self._running is None:
            self._running = GraphBackend(partial(_build, self.model, self.recorders), self.model, None)
        return self._running

    def _apply(self, fn: Any, recurse: bool = True) -> "Recorded":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._running = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs: they hang on this very model and are captured again."""
        return self.__dict__ | {"_running": None}


def _read(recorders: Any, problems: Problems) -> dict[str, Recorder]:
    named = {path: path for path in recorders} if isinstance(recorders, (list, tuple)) else recorders
    if not isinstance(named, Mapping) or not named:
        what = f"is {recorders!r}; give a mapping from names to recorders or paths, or a list of paths"
        problems.add("recorders", what)
        return {}
    given = {name: {"type": "ModuleOutputs", "source": r} if isinstance(r, str) else r for name, r in named.items()}
    read = {name: read_recorder(entry, f"recorders.{name}", problems) for name, entry in given.items()}
    return {name: recorder for name, recorder in read.items() if recorder is not None}


def _build(model: nn.Module, recorders: Mapping[str, Recorder], inputs: Inputs, extra: Mapping[str, Tensor]) -> Program:
    points = {name: point_of(recorder) for name, recorder in recorders.items()}
    layout = Layout.of(inputs, model)
    grad = torch.is_grad_enabled()
    captured = capture(model, inputs, name="model", points=points.values(), grad=grad, layout=layout)
    _check_calls(Ran(model, captured, inputs), recorders)
    held = {"model": model, "model_constants": captured.constants}
    joined = join([Side("model", captured.graph, grad=True)], held)
    steps = (InsertRecords(points, "model"), InsertLosses({}, return_records={"model": list(points)}), ProtectRecords())
    seen = {sizes(split(inputs.args, inputs.kwargs)[1])}
    return Program(layout, [Situation((captured,), context())], run(joined, steps), seen=seen)


def _check_calls(side: Ran, recorders: Mapping[str, Recorder]) -> None:
    problems = Problems()
    check_records(side, "recorders", recorders, problems)
    problems.raise_if_any()
