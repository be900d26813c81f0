"""What the parts of a distillation cost, counted on captured graphs without values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from fxkd.capture import Captured
from fxkd.capture.preserve import preserved
from fxkd.capture.twins import fake_of, fake_twins
from fxkd.fakes import Stage
from fxkd.shapes import Flow


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Parameters and forward operations of one part.

    Args:
        part: ``"student"``, ``"teacher"``, ``"connectors"`` or ``"losses"``.
        parameters: How many numbers its parameters hold.
        flops: Floating-point operations of one forward on the example inputs (a multiply-add is two); None where they
            cannot be counted without values.
        parameters_left: Those that the joint graph still reads after pruning; None if there is no joint graph.
        flops_left: Those that it still does.
    """

    part: str
    parameters: int
    flops: int | None
    parameters_left: int | None
    flops_left: int | None


class _Counting(fx.Interpreter):
    """Run a captured graph without values; each node remembers what it cost."""

    def __init__(self, root: nn.Module, graph: fx.Graph, stage: Stage, counter: FlopCounterMode) -> None:
        super().__init__(root, graph=graph)
        self.stage, self.counter = stage, counter

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        if n.op == "placeholder" or "function" in n.meta:
            value = self.stage.fresh(n.meta["val"])
        else:
            value = super().run_node(n)
        n.meta["flops"] = self.counter.get_total_flops() - before
        return value


def count(captured: Captured, model: nn.Module) -> int | None:
    """Count the operations of a captured model, and note them in ``node.meta["flops"]``.

    >>> from fxkd.capture import Inputs, capture
    >>> model = nn.Linear(4, 2, bias=False)
    >>> count(capture(model, Inputs((torch.zeros(3, 4),))), model)
    48
    """
    root, stage, counter = nn.Module(), Stage(), FlopCounterMode(display=False)
    setattr(root, captured.name, model)
    setattr(root, f"{captured.name}_constants", captured.constants)
    try:
        with preserved(root), fake_twins(root, partial(fake_of, stage.mode)), stage.mode, torch.no_grad(), counter:
            _Counting(root, captured.graph, stage, counter).run()
    except Exception:  # noqa: BLE001 (a count is worth no error: what cannot be counted is not)
        return None
    return counter.get_total_flops()


def count_parts(flow: Flow) -> tuple[int | None, int | None]:
    """Count the operations of all connectors and of all losses, each as often as it is called."""
    return _total(_connector_flops(flow)), _total(_loss_flops(flow))


def _connector_flops(flow: Flow) -> Iterable[int]:
    for arguments in flow.arguments.values():
        for argument in arguments.values():
            name = argument.reference.connector
            if name is not None:
                yield flow.stage.flops(flow.modules["connectors"][name], argument.record)


def _loss_flops(flow: Flow) -> Iterable[int]:
    for loss, arguments in flow.arguments.items():
        values = {name: argument.value for name, argument in arguments.items()}
        yield flow.stage.flops(flow.modules["losses"][loss], **values)


def _total(counts: Iterable[int]) -> int | None:
    try:
        return sum(counts)
    except Exception:  # noqa: BLE001 (as above)
        return None


def size(parameters: Iterable[nn.Parameter]) -> int:
    """Count numbers in parameters, each parameter once."""
    return sum(parameter.numel() for parameter in {id(p): p for p in parameters}.values())


def left(joint: fx.GraphModule, side: str) -> tuple[int, int | None]:
    """Give the parameters that the nodes of one side read, and what these nodes cost."""
    nodes = [node for node in joint.graph.nodes if node.meta.get("side") == side]
    held: list[Any] = []
    for node in nodes:
        if node.op in ("call_module", "get_attr"):
            found = _attribute(joint, str(node.target))
            held += found.parameters() if isinstance(found, nn.Module) else [found]
    costs = [node.meta.get("flops", 0) for node in nodes]
    parameters = size(parameter for parameter in held if isinstance(parameter, nn.Parameter))
    return parameters, sum(costs)


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def costs(
    flow: Flow, models: Mapping[str, nn.Module], counted: Mapping[str, int | None], joint: fx.GraphModule | None
) -> tuple[Cost, ...]:
    """List what each part costs.

    Args:
        flow: Connectors and losses on their arguments.
        models: ``student`` and ``teacher``.
        counted: The operations of each, if they could be counted.
        joint: The pruned joint graph, if there is one.
    """
    rows = []
    for name, model in models.items():
        parameters, operations = left(joint, name) if joint is not None else (None, None)
        if counted.get(name) is None:
            operations = None
        rows.append(
            Cost(
                part=name,
                parameters=size(model.parameters()),
                flops=counted.get(name),
                parameters_left=parameters,
                flops_left=operations,
            )
        )
    for part, operations in zip(("connectors", "losses"), count_parts(flow), strict=True):
        parameters = size(p for module in flow.modules[part].values() for p in module.parameters())
        remains = (None, None) if joint is None else (parameters, operations)
        rows.append(
            Cost(
                part=part,
                parameters=parameters,
                flops=operations,
                parameters_left=remains[0],
                flops_left=remains[1],
            )
        )
    return tuple(rows)
