"""What feeds neither a loss nor the output is gone; what is felt stays."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, fx, nn
from torch.nn import functional

from fxkd.capture import PointName
from fxkd.passes import InsertDeliveries, InsertLosses, InsertRecords, Prune, run
from fxkd.passes.insert_losses import Source
from fxkd.passes.prune import dependencies, needed_nodes
from tests.passes.joint import batch, joined, outputs, shape_of, structure
from tests.passes.programs import RETURNED, STEPS, Program
from tests.support.oracle import assert_same


class Counted(nn.Module):
    """Count the calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


class Model(nn.Module):
    """A body, a tail with a norm, a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = Counted(nn.Linear(4, 4))
        self.tail = nn.Sequential(Counted(nn.Linear(4, 4)), nn.BatchNorm1d(4))
        self.head = Counted(nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.body(x)))


def record_of(side: str, name: str) -> Source:
    return Source(side=side, recorder=name)


def distilled(
    student: nn.Module,
    teacher: nn.Module,
    *,
    output: bool = True,
    point: str = "body",
    stateful: tuple[str, ...] = ("student",),
) -> fx.GraphModule:
    points = {"feat": outputs(point)}
    losses = {"loss_feat": {"input": record_of("student", "feat"), "target": record_of("teacher", "feat")}}
    module = joined(student, teacher, inputs=(batch(3),), points=points.values())
    module.losses = nn.ModuleDict({"loss_feat": nn.MSELoss()})
    steps = [InsertRecords(points, "teacher"), InsertRecords(points, "student"), InsertLosses(losses, None, output)]
    return run(module, [*steps, Prune(stateful)])


def test_the_teachers_tail_is_gone_and_not_called() -> None:
    student, teacher = Model(), Model(1).eval()
    module = distilled(student, teacher)
    before = teacher.body.calls
    module(batch(5))
    assert teacher.body.calls == before + 1
    assert teacher.tail[0].calls == teacher.head.calls == 0 or teacher.tail[0].calls == teacher.head.calls
    counts = teacher.tail[0].calls, teacher.head.calls
    module(batch(5))
    assert (teacher.tail[0].calls, teacher.head.calls) == counts
    assert shape_of(module.graph, "teacher") == ["teacher.body", "record"]
    assert shape_of(module.graph, "student") == ["student.body", "record", "student.tail", "student.head"]


def test_a_norm_of_the_student_moves_also_when_its_output_is_not_returned() -> None:
    student = Model()
    module = distilled(student, Model(1), output=False)
    result = module(batch(5))
    assert result["output"] is None
    assert student.tail[1].num_batches_tracked == 1
    assert not torch.equal(student.tail[1].running_mean, torch.zeros(4))
    assert "student.head" not in shape_of(module.graph)


def test_without_state_nothing_of_the_tail_is_left() -> None:
    student = Model()
    module = distilled(student, Model(1), output=False, stateful=())
    module(batch(5))
    assert student.tail[1].num_batches_tracked == 0
    assert "student.tail" not in shape_of(module.graph)


def test_an_opened_norm_of_the_student_moves_too() -> None:
    class Opened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            h, norm = self.body(x), self.norm
            return functional.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)

    student = Opened()
    module = distilled(student, Opened(), output=False)
    module(batch(5))
    expected = Opened()
    expected.load_state_dict(student.state_dict())
    assert not torch.equal(student.norm.running_mean, torch.zeros(4))
    assert shape_of(module.graph, "teacher")[-1] == "record"


def test_a_moving_average_of_the_student_moves_whole() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.register_buffer("center", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            self.center.mul_(0.5).add_(h.detach().mean(0))
            self.center[1:3].clamp_(-0.1, 0.1)
            return h

    torch.manual_seed(0)
    student = Average()
    module = run(joined(student, points=[outputs("body")]), [Prune()])
    expected = 0.5 + student.body(batch(5)).detach().mean(0)
    expected[1:3] = expected[1:3].clamp(-0.1, 0.1)
    module(batch(5))
    assert_same(expected, student.center)


def test_a_hook_of_the_student_still_runs() -> None:
    seen: list[int] = []
    student = Model()
    student.head.register_forward_hook(lambda module, args, output: seen.append(1))
    module = distilled(student, Model(1), output=False)
    seen.clear()
    module(batch(5))
    assert seen == [1]


# In-place


def live(h: Tensor) -> Tensor:
    """Write through a view, then read the whole."""
    h = h * 1
    h[:, 0].mul_(2)
    h[1:] = 0
    return h


def dead(h: Tensor) -> Tensor:
    """Write to something that nobody reads."""
    other = h * 3
    other.add_(1)
    other[0] = 5
    return h * 1


def after_the_last_read(h: Tensor) -> Tensor:
    """Write when all is said."""
    y = h * 2
    z = y + 1
    y.add_(1)
    return z


class Opened(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.fc(x))


@pytest.mark.parametrize("function", [live, dead, after_the_last_read], ids=lambda function: function.__name__)
def test_values_are_unchanged(function: Callable[[Tensor], Tensor]) -> None:
    student = Opened(function)
    module = run(joined(student), [Prune()])
    assert_same(student(batch(5)), module(batch(5))["output"])


def test_a_live_write_to_a_view_stays() -> None:
    names = shape_of(run(joined(Opened(live)), [Prune()]).graph)
    assert "mul_" in names
    assert "setitem" in names


def test_a_dead_write_goes() -> None:
    names = shape_of(run(joined(Opened(dead)), [Prune()]).graph)
    assert names == ["x", "student.fc", "mul", "output"]


def test_a_write_after_the_last_read_goes() -> None:
    assert "add_" not in shape_of(run(joined(Opened(after_the_last_read)), [Prune()]).graph)


def test_a_write_to_the_output_after_it_was_made_stays() -> None:
    def late(h: Tensor) -> Tensor:
        y = h * 2
        part = y[0]
        part.zero_()
        return y

    student = Opened(late)
    module = run(joined(student), [Prune()])
    assert_same(student(batch(5)), module(batch(5))["output"])


def test_a_write_to_an_input_is_felt_by_nobody_or_kept() -> None:
    def nothing(h: Tensor) -> Tensor:
        return h

    class WritesInput(Opened):
        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2)
            return self.fc(x)

    student = WritesInput(nothing)
    given = batch(5)
    assert_same(student(batch(5)), run(joined(student), [Prune()])(given)["output"])


# Random


class Noise:
    def draw(self, x: Tensor) -> Tensor:
        return torch.rand_like(x) * torch.rand(x.shape[0], 1)


class Noisy(Opened):
    def __init__(self) -> None:
        super().__init__(lambda h: h)
        self.noise = Noise()

    def forward(self, x: Tensor) -> Tensor:
        share = torch.rand(x.shape[0], 4)
        return self.fc(x * self.noise.draw(share))


def test_a_substituted_draw_is_removed() -> None:
    point = PointName("MethodOutputs", f"{__name__}.Noise.draw")
    module = joined(Noisy(), Noisy(), points=[point], whole=[point])
    module = run(module, [InsertDeliveries({"draw": point}), Prune()])
    assert shape_of(module.graph, "student") == ["deliver", "mul", "student.fc"]
    state = torch.get_rng_state()
    module(batch(5))
    assert not torch.equal(torch.get_rng_state(), state)  # the teacher's own draw is left


# Guards


class Decides(Opened):
    """Looks at a size before the point and after it."""

    def __init__(self) -> None:
        super().__init__(lambda h: h)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x * 2 if x.shape[0] > 100 else x)
        h = h.relu().flatten(0)
        return h.sum() if h.shape[0] > 4 else self.head(h.reshape(-1, 4)[:1])


def test_guards_of_pruned_parts_are_gone() -> None:
    whole = joined(Decides(), Decides(), inputs=(batch(3),), points=[outputs("fc")])
    module = distilled(Decides(), Decides(), output=False, point="fc")
    guards = {side: shape_of(module.graph, side).count("guard") for side in ("student", "teacher")}
    assert guards == {"student": 1, "teacher": 1}
    assert {side: shape_of(whole.graph, side).count("guard") for side in guards} == {"student": 2, "teacher": 2}


def test_a_guard_before_what_is_needed_stays() -> None:
    module = distilled(Decides(), Decides(), point="fc")
    assert shape_of(module.graph, "student").count("guard") == 2


class Chooses(Decides):
    """Decides last of all."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        doubled = h * 2
        return doubled if h.shape[0] > 4 else h


@pytest.mark.parametrize("output", [True, False])
def test_a_guard_behind_the_last_node_stays_if_the_result_is_returned(output: bool) -> None:
    module = distilled(Chooses(), Chooses(), output=output, point="fc")
    guards = {side: shape_of(module.graph, side).count("guard") for side in ("student", "teacher")}
    assert guards == {"student": int(output), "teacher": 0}


# The pass


class Average(nn.Module):
    """Moves a buffer behind its last point that it reads before it, at the next step."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x - self.average)
        self.average.add_(x.detach().mean(0))
        return self.head(x)


def test_what_the_next_step_reads_is_written() -> None:
    teacher, plain = Average(1), Average(1)
    rewritten = distilled(Average(), teacher, output=False)
    assert not any(node.target == "teacher.head" for node in rewritten.graph.nodes)
    for _ in range(2):
        rewritten(batch())
        plain(batch())
    assert_same(plain.average, teacher.average)


class Before(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        (self.head(h) + 1).relu()
        return h.tanh()


class After(Before):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).tanh()


def test_prune() -> None:
    module = run(fx.symbolic_trace(Before()), [Prune()])
    assert structure(module.graph) == structure(fx.symbolic_trace(After()).graph)


def test_nothing_to_do() -> None:
    module = fx.symbolic_trace(After())
    before = str(module.graph)
    _, modified = Prune()(module)
    assert not modified
    assert str(module.graph) == before


def test_twice_is_once() -> None:
    module = distilled(Model(), Model(1))
    _, modified = Prune()(module)
    assert not modified


def test_placeholders_stay() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            y + 1
            return x

    module = run(fx.symbolic_trace(Two()), [Prune()])
    assert shape_of(module.graph) == ["x", "y", "output"]


# Random graphs


def bare(steps: list[tuple[str, int, int]], returned: list[int], seed: int = 0) -> Program:
    return Program([step for step in steps if step[0] != "tap"], returned)


@settings(max_examples=15)
@given(steps=STEPS, returned=RETURNED)
def test_pruning_keeps_what_a_program_gives(steps: list[tuple[str, int, int]], returned: list[int]) -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    model = bare(steps, returned)
    with torch.no_grad():
        module = run(joined(model, inputs=(x,)), [Prune()])
        expected = [value.clone() for value in model(x.clone())]
        moved = model.count.clone()
        model.count.zero_()
        found = module(x.clone())["output"]
    assert_same(expected, found)
    assert_same(moved, model.count)


@settings(max_examples=40)
@given(steps=STEPS, returned=RETURNED)
def test_without_writes_what_is_left_is_what_the_output_is_made_of(
    steps: list[tuple[str, int, int]], returned: list[int]
) -> None:
    """The needed nodes are the ancestors of the output, found here by another algorithm."""
    pure = [step for step in steps if step[0] in ("add", "mul", "relu", "clone", "view", "transpose", "layer")]
    module = fx.symbolic_trace(bare(pure, returned))
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    reached = {node for node in module.graph.nodes if node.op == "placeholder"}
    stack = [output]
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack.extend(node.all_input_nodes)
    assert needed_nodes(module.graph, ("student",)) == reached
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    expected = module(x)
    assert_same(expected, run(module, [Prune()])(x))
    assert set(module.graph.nodes) == reached


def test_dependencies_are_the_edges_of_the_graph() -> None:
    graph = fx.symbolic_trace(Before()).graph
    network = dependencies(graph)
    assert nx.is_directed_acyclic_graph(network)
    assert set(network.edges) == {(source, node) for node in graph.nodes for source in node.all_input_nodes}


def test_gradients_are_unchanged() -> None:
    def gradients(pruned: bool) -> dict[str, Any]:
        student, teacher = Model(), Model(1)
        points = {"feat": outputs("body")}
        module = joined(student, teacher, inputs=(batch(3),), points=points.values())
        losses = {"loss_feat": {"input": record_of("student", "feat"), "target": record_of("teacher", "feat")}}
        module.losses = nn.ModuleDict({"loss_feat": nn.MSELoss()})
        steps = [InsertRecords(points, "teacher"), InsertRecords(points, "student"), InsertLosses(losses, None)]
        result = run(module, [*steps, *([Prune()] if pruned else [])])(batch(5))
        (result["loss"] + result["output"].square().sum()).backward()
        return {name: parameter.grad for name, parameter in student.named_parameters()}

    assert_same(gradients(False), gradients(True))
