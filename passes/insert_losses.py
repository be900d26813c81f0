"""Add connectors and losses to the joint graph, and let it return what a training step needs."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.errors import PointError, SpecError, did_you_mean
from fxkd.passes.insert_gradients import insert_gradient_records
from fxkd.passes.insert_records import records_of
from fxkd.records import CallInputs, detached

NONE = "the model returns none: give 'student_loss'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where an argument of a loss comes from: a record of a side, a tuple of several, or (``input``) a placeholder."""

    side: str = ""
    recorder: str | tuple[str, ...] = ""
    record_idx: int = 0
    data_idx: int | str | None = None
    connector: str | None = None
    connector_idx: int | None = None
    detach: bool = False
    input: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnLoss:
    """The student's own loss: taken from what it returns (``args`` None), or a module called on named values."""

    args: Mapping[str, str | None] | None = None  # argument -> placeholder, or None for what the student returned


def mean_of(value: Any, where: str = "a loss") -> Any:
    """Make one number of what a loss gives: the mean of a tensor, the sum of the means of several.

    Raises:
        SpecError: It gives something else.
    """
    if isinstance(value, Tensor):
        if value.dim() == 0:
            return value
        return value.mean() if value.numel() else value.sum()  # of nothing: 0
    if isinstance(value, (tuple, list)) and value:
        return sum(mean_of(part, where) for part in value)
    raise SpecError([f"{where}: gives a {type(value).__name__}; a loss gives a tensor, or a list of tensors"])


def add_losses(values: Sequence[Tensor]) -> Any:
    """Sum the losses that train."""
    return sum(values[1:], start=values[0])


@dataclass(frozen=True)
class InsertLosses(PassBase):
    """Call each loss on the records its mapping names, and return losses, total, output and records.

    The total is the sum of the losses whose name contains ``loss`` (MMRazor's rule) and of the own losses of student
    and trained teachers.

    Args:
        losses: Loss name -> argument -> where it comes from.
        own: The student's own loss, if there is to be one.
        return_output: Whether what the student returns is returned.
        return_records: Recorder names per side whose records are returned.
        trained: The other sides that train, whose own loss is the same as the student's.
        gradients: Recorder names per side at whose points the gradient of the side's own loss is recorded.
        one_model: Whether the records of all sides are of the student.
        several: Whether the other sides return a dict of what each of several models does.
    """

    losses: Mapping[str, Mapping[str, Source]]
    own: OwnLoss | None = None
    return_output: bool = True
    return_records: Mapping[str, Sequence[str]] = field(default_factory=dict)
    trained: Sequence[str] = ()
    gradients: Mapping[str, Sequence[str]] = field(default_factory=dict)
    one_model: bool = False
    several: bool = False

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Add the losses and rewrite the output."""
        graph = graph_module.graph
        output = graph.output_node()
        held: Any = output.args[0]
        returned, value = held["output"], output.meta["val"]["output"]
        others = {side: (held["others"][side], output.meta["val"]["others"][side]) for side in held.get("others", ())}
        with graph.inserting_before(output):
            own = _own_loss(graph, self.own, returned, value, "Loss_student") if self.own else None
            theirs = {side: self._loss_of_others(graph, *one) for side, one in others.items()}
            self._record_gradients(graph, {"student": own} | theirs)
            losses = {name: _loss(graph, name, sources) for name, sources in self.losses.items()}
            taught = _sum(graph, [n for s, n in theirs.items() if n is not None and s in self.trained], "Loss_teachers")
            trained = [node for name, node in losses.items() if "loss" in name]
            distilled = _sum(graph, trained, "Loss_dis")
            total = _sum(graph, [node for node in (own, taught, distilled) if node is not None], "Loss")
        records = {side: {n: records_of(graph, side, n) for n in names} for side, names in self.return_records.items()}
        result = {"loss": total, "student_loss": own, "losses": losses, "output": returned, "records": records}
        result |= {"teacher_loss": taught} if self.trained else {}
        output.meta["val"] = {"output": value}
        output.args = (result if self.return_output else result | {"output": None},)
        if not self.return_output and own is None:
            output.meta.pop("returns", None)  # what the student returns is not asked for, nor what decided on it
        return PassResult(graph_module, modified=True)

    def _loss_of_others(self, graph: fx.Graph, returned: Any, value: Any) -> fx.Node | None:
        """Give the own loss of a teacher; of several the sum."""
        own = self.own or OwnLoss()
        if not self.several:
            return _own_loss(graph, own, returned, value, "Loss_teacher")
        each = [_own_loss(graph, own, returned[name], value[name], f"Loss_teacher_{name}") for name in value]
        return _sum(graph, [node for node in each if node is not None], "Loss_teacher")

    def _record_gradients(self, graph: fx.Graph, own: Mapping[str, fx.Node | None]) -> None:
        for side, names in self.gradients.items():
            loss = own["student" if self.one_model else side]
            if loss is None:
                raise SpecError(
                    [f"{side}_recorders.{names[0]}: a gradient is that of the model's own loss, and {NONE}"]
                )
            for name in names:
                keep = side == "student" or side in self.trained
                insert_gradient_records(graph, f"{side}.{name}", loss, keep=keep or self.one_model)


def _loss(graph: fx.Graph, name: str, sources: Mapping[str, Source]) -> fx.Node:
    arguments = {
        argument: _value(graph, source, f"loss_forward_mappings.{name}.{argument}")
        for argument, source in sources.items()
    }
    called = _module(graph, f"losses.{name}", (), arguments, part="loss")
    return _function(graph, mean_of, called, part="loss")


def _value(graph: fx.Graph, source: Source, where: str) -> Any:
    """Pick records, send them through their connector, pick a part of that."""
    if source.input is not None:
        return placeholder(graph, source.input, where)
    several = source.recorder if isinstance(source.recorder, tuple) else (source.recorder,)
    found = tuple(_part(graph, source, recorder, where) for recorder in several)
    value: Any = found if isinstance(source.recorder, tuple) else found[0]
    if source.connector is not None:
        value = _module(graph, f"connectors.{source.connector}", (value,), {}, part="connector")
    if source.connector_idx is not None:
        value = _function(graph, operator.getitem, value, source.connector_idx, part="connector")
    return _function(graph, detached, value, part="loss") if source.detach else value


def _part(graph: fx.Graph, source: Source, recorder: str, where: str) -> fx.Node:
    """Pick one record, and the part of it that is asked for."""
    records = records_of(graph, source.side, recorder)
    if not -len(records) <= source.record_idx < len(records):
        raise PointError(
            f"{where}.record_idx: {source.record_idx}, but {source.side} calls the point of "
            f"{recorder!r} {len(records)} times in a forward"
        )
    value = records[source.record_idx]
    if isinstance(source.data_idx, str) and isinstance(value.meta.get("val"), CallInputs):
        value = _function(graph, getattr, value, "kwargs", part="loss")
    if source.data_idx is not None:
        value = _function(graph, operator.getitem, value, source.data_idx, part="loss")
    return value


def placeholder(graph: fx.Graph, name: str, where: str) -> fx.Node:
    """Find the placeholder ``name``."""
    known: dict[str, fx.Node] = {str(node.target): node for node in graph.nodes if node.op == "placeholder"}
    if name not in known:
        raise PointError(no_argument(name, where, known))
    return known[name]


def no_argument(name: str, where: str, known: Iterable[str]) -> str:
    """Say that a call has no tensor of a name."""
    known = list(known)
    has = ", ".join(map(repr, known)) or "none"
    return f"{where}: no argument {name!r} in the call, which has {has}.{did_you_mean(name, known)}"


def _own_loss(graph: fx.Graph, own: OwnLoss, returned: Any, value: Any, name: str) -> fx.Node | None:
    if own.args is None:
        return _sum(graph, _returned_losses(graph, returned, value), name)
    arguments = {
        name: returned if source is None else placeholder(graph, source, "student_loss.args")
        for name, source in own.args.items()
    }
    called = _module(graph, "student_loss", (), arguments, part="loss")
    return _sum(graph, [_function(graph, mean_of, called, part="loss")], name)


def returned_losses(value: Any) -> dict[str, Any]:
    """Give the losses among what a model returned: its entries, or its attribute, whose name contains ``loss``.

    A mapping beside the entry ``loss`` says what that is made of, and counts for nothing.

    >>> sorted(returned_losses({"loss": 1, "loss_dict": {"loss_ce": 1}, "loss_aux": 2, "logits": 3}))
    ['loss', 'loss_aux']
    """
    if isinstance(value, Mapping):
        found = {name: part for name, part in value.items() if "loss" in str(name) and part is not None}
        has_total = isinstance(found.get("loss"), (Tensor, int, float))
        return {name: part for name, part in found.items() if not (has_total and isinstance(part, Mapping))}
    attribute = getattr(value, "loss", None)
    return {"loss": attribute} if isinstance(attribute, Tensor) else {}


def _returned_losses(graph: fx.Graph, returned: Any, value: Any) -> list[fx.Node]:
    reach: Callable[..., Any] = operator.getitem if isinstance(value, Mapping) else getattr
    held = [
        returned[name] if isinstance(returned, dict) else _function(graph, reach, returned, name, part="loss")
        for name in returned_losses(value)
    ]
    return [_function(graph, mean_of, node, part="loss") for node in held]


def _sum(graph: fx.Graph, nodes: Sequence[fx.Node], name: str) -> fx.Node | None:
    if not nodes:
        return None
    total = graph.create_node("call_function", add_losses, (tuple(nodes),), name=name)
    total.meta["part"] = "loss"
    return total


def _module(graph: fx.Graph, target: str, args: tuple[Any, ...], kwargs: dict[str, Any], part: str) -> fx.Node:
    node = graph.create_node("call_module", target, args, kwargs)
    node.meta["part"] = part
    return node


def _function(graph: fx.Graph, target: Callable[..., Any], *args: Any, part: str) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta["part"] = part
    return node
