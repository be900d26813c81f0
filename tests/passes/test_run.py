"""Running passes: in order, looked at, the culprit named."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fxkd.passes import run
from fxkd.passes.run import lint


@dataclass(frozen=True)
class AddOne(PassBase):
    """Add a number to the output, as often as asked."""

    times: int = 1

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        output = next(node for node in reversed(graph_module.graph.nodes) if node.op == "output")
        for _ in range(self.times):
            with graph_module.graph.inserting_before(output):
                output.args = (graph_module.graph.call_function(torch.add, (output.args[0], 1)),)
        return PassResult(graph_module, modified=self.times > 0)


@dataclass(frozen=True)
class Fails(PassBase):
    """Raise."""

    error: Exception = field(default_factory=lambda: ValueError("on purpose"))

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        raise self.error


@dataclass(frozen=True)
class Breaks(PassBase):
    """Leave a graph that reads a node before it is made."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        first, *_, last = graph_module.graph.nodes
        last.prepend(first)
        return PassResult(graph_module, modified=True)


@dataclass(frozen=True)
class Needs(PassBase):
    """Require something first."""

    def requires(self, graph_module: fx.GraphModule) -> None:
        raise LookupError("not there")

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        raise AssertionError("must not run")


def traced() -> fx.GraphModule:
    return fx.symbolic_trace(nn.Sequential(nn.ReLU()))


def test_passes_run_in_order_and_the_code_follows() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert torch.equal(run(traced(), [AddOne(), AddOne(2)])(x), torch.tensor([3.0, 5.0]))


def test_on_pass_sees_each_result() -> None:
    seen: list[tuple[str, int, bool]] = []
    run(
        traced(),
        [AddOne(), AddOne(0), AddOne(2)],
        on_pass=lambda step, module, modified: seen.append((str(step), len(module.graph.nodes), modified)),
    )
    assert seen == [("AddOne(times=1)", 4, True), ("AddOne(times=0)", 4, False), ("AddOne(times=2)", 6, True)]


def test_no_passes_give_the_graph_back() -> None:
    module = traced()
    assert run(module, []) is module


@pytest.mark.parametrize("step", [Fails(), Needs(), Breaks()], ids=lambda step: type(step).__name__)
def test_the_note_names_the_culprit(step: PassBase) -> None:
    seen: list[PassBase] = []
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(traced(), [AddOne(), step, AddOne()], on_pass=lambda step, module, modified: seen.append(step))
    assert caught.value.__notes__ == [f"while running {step}"]
    assert [str(one) for one in seen] == ["AddOne(times=1)"]


def test_the_error_itself_comes_through() -> None:
    with pytest.raises(ValueError, match="on purpose"):
        run(traced(), [Fails()])


def test_lint_says_nothing_of_objects_that_are_no_tensors() -> None:
    module = traced()
    module.settings = {"a": 1}
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        module.graph.create_node("get_attr", "settings")
    lint(module)  # warnings are errors here
