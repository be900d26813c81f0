"""Modules that run on values alone: one node each, one operator in a compiled graph, gradients included."""

import copy
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

import fxkd
from fxkd.capture.whole_calls import Whole
from fxkd.capture.whole_operator import kept
from fxkd.capture.whole_sites import Site
from fxkd.errors import CaptureError, GuardError
from tests.support.oracle import assert_same

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def batch(seed: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


class OnValues(nn.Module):
    """Has parameters of its own, of which one is never used, and goes by values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.fc(x) * float(x.detach().abs().max())


class Chooses(OnValues):
    def forward(self, x: Tensor) -> Any:
        return self.fc(x)[x.detach().numpy()[:, 0].argsort().copy()]


class Nested(OnValues):
    def forward(self, x: Tensor) -> Any:
        return {"all": [super().forward(x), None], "count": int((x > 0).sum())}


class Output(OnValues):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return BaseModelOutput(last_hidden_state=value, hidden_states=(value * 2, x))


@dataclass
class Pair:
    """What a module of somebody's own gives."""

    first: Tensor
    second: Tensor | None = None


class Paired(OnValues):
    def forward(self, x: Tensor) -> Any:
        return Pair(super().forward(x))


class Maybe(OnValues):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if float(x.detach().sum()) > 0 else None


class Several(OnValues):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return [value] * (1 if float(x.detach().sum()) > 0 else 2)


class PairedMaybe(OnValues):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return Pair(value, value * 2 if float(x.detach().sum()) > 0 else None)


class PairedNumber(OnValues):
    def forward(self, x: Tensor) -> Any:
        return Pair(super().forward(x), 3 if float(x.detach().sum()) > 0 else 2)  # type: ignore[arg-type]


class ByMode(OnValues):
    """Gives more in train mode, as detectors and auxiliary heads do."""

    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return [value, value * 2] if self.training else [value]


class Table(OnValues):
    """Gives what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(64, 4))

    def forward(self, x: Tensor) -> Any:
        return self.table if float(x.detach().max()) < 1e9 else x


class Bounded(OnValues):
    """Gives what its own backward needs."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x).tanh()


class Views(OnValues):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return (value, value[:, :2])


class Sometimes(OnValues):
    """Lets gradients through by a value."""

    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return value if float(x.detach().max()) > 50 else value.detach()


class Grows(OnValues):
    """Uses another parameter by a value."""

    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return value + self.unused(x) if float(x.detach().max()) > 50 else value


BY_SUM = (Maybe, Several, PairedMaybe, PairedNumber)


class Net(nn.Module):
    """Sends its input through a module that runs on values."""

    def __init__(self, inner: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.inner, self.head = nn.Linear(4, 4), inner(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        value = self.inner(x if isinstance(self.inner, BY_SUM) else h)
        if value is None:
            value = h
        if isinstance(value, list):
            value = torch.stack(value).sum(0)
        if isinstance(value, dict) and "count" in value:
            value = value["all"][0] * value["count"]
        if isinstance(value, BaseModelOutput):
            value = value.last_hidden_state + value.hidden_states[0] + value[1][1]
        if isinstance(value, tuple):
            value = value[0].add_(1) + value[1].sum()
        if isinstance(value, Pair) and isinstance(value.second, int):
            value = value.first * value.second
        if isinstance(value, Pair):
            value = value.first if value.second is None else value.second
        return {"loss": self.head(value).square().mean() + h.mean()}


HEAD = {"student_recorders": {"h": {"type": "ModuleOutputs", "source": "head"}}}


def prepared(inner: Callable[[], nn.Module], spec: dict[str, Any] = HEAD, rows: int = 4) -> fxkd.Distiller:
    return fxkd.prepare(Net(inner), None, spec, example_inputs=(batch(0, rows),), return_records=True)


def compiled(distiller: fxkd.Distiller) -> Any:
    return torch.compile(distiller, fullgraph=True, backend="aot_eager")


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_steps(step: Any, student: nn.Module, own: nn.Module, batches: list[Tensor]) -> None:
    """Compare steps with the model alone, gradients included: those of what is not used are None in both."""
    for x in batches:
        wanted, out = own(x)["loss"], step(x)
        for model in (own, student):
            model.zero_grad()
        wanted.backward()
        out.loss.backward()
        assert_same(wanted, out.loss)
        assert_same(gradients(own), gradients(student))


@pytest.mark.parametrize("way", ["graph", "compiled"])
@pytest.mark.parametrize("inner", [OnValues, Chooses, Nested, Output, Paired])
def test_values_and_gradients(inner: Callable[[], nn.Module], way: str) -> None:
    distiller = prepared(inner)
    step = compiled(distiller) if way == "compiled" else distiller
    assert_steps(step, distiller.student, Net(inner), [batch(seed, rows) for seed, rows in enumerate((4, 4, 6))])


@pytest.mark.parametrize("inner", BY_SUM)
def test_a_result_that_is_built_by_values_is_captured_anew(inner: Callable[[], nn.Module]) -> None:
    distiller = prepared(inner)
    assert_steps(distiller, distiller.student, Net(inner), [batch(seed) for seed in range(8)])


@pytest.mark.parametrize("inner", [Sometimes, Grows])
def test_gradients_that_come_later_are_not_lost(inner: Callable[[], nn.Module]) -> None:
    distiller, own = prepared(inner), Net(inner)
    step = compiled(distiller)
    assert_steps(step, distiller.student, own, [batch(0)])
    with pytest.raises(GuardError, match=r"gradients flow through 'student.inner' at this step as they did in none"):
        step(900 * batch(0))
    assert_steps(distiller, distiller.student, own, [900 * batch(0)])


def test_what_is_said_after_that_is_known_when_it_is_compiled_anew() -> None:
    distiller, own = prepared(Grows), Net(Grows)
    step = compiled(distiller)
    step(batch(0))
    with pytest.raises(GuardError, match="It is known from now on: compile anew"):
        step(900 * batch(0))
    torch._dynamo.reset()
    assert_steps(compiled(distiller), distiller.student, own, [900 * batch(0)])


@pytest.mark.parametrize("inner", [PairedNumber, PairedMaybe])
def test_a_compiled_graph_stops_where_what_it_does_not_follow_changes(inner: Callable[[], nn.Module]) -> None:
    distiller = prepared(inner)
    step, sums = compiled(distiller), [float(batch(seed).sum()) for seed in range(8)]
    alike = [seed for seed in range(8) if (sums[seed] > 0) is (sums[0] > 0)]
    assert_steps(step, distiller.student, Net(inner), [batch(seed) for seed in alike])
    other = next(seed for seed in range(8) if seed not in alike)
    with pytest.raises(GuardError, match=r"'student.inner' gave .* at this step, and the compiled graph holds only"):
        step(batch(other))


def test_a_call_in_a_compiled_graph_is_named_by_what_is_promised_of_it() -> None:
    """Torch finds compiled graphs on disk by that name, also those of another process."""
    site = Site(Whole("f", abs), (), (), ("tensor", 0), ((torch.float32, "given"),), ((("constant", 4),),), ())
    others = [replace(site, sizes=((("constant", 5),),)), replace(site, asking=(0,)), replace(site, gradients=(True,))]
    assert site.told() == replace(site).told()
    assert len({one.told() for one in (site, *others)}) == 4


def test_train_and_eval_may_give_more_or_less() -> None:
    distiller, own = prepared(ByMode), Net(ByMode)
    step = compiled(distiller)
    assert_steps(step, distiller.student, own, [batch(0)])
    distiller.eval()
    own.eval()
    distiller(batch(0))
    assert_steps(step, distiller.student, own, [batch(0)])


def test_memory_that_results_share_is_not_written_to_in_a_compiled_graph() -> None:
    distiller = prepared(Views)
    assert_steps(distiller, distiller.student, Net(Views), [batch(0)])
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"what 'inner' gives shares memory .* \(clone\)"):
        compiled(distiller)(batch(0))


def test_hooks_of_parameters_are_called_once() -> None:
    distiller, own = prepared(OnValues), Net(OnValues)
    for model in (own, distiller.student):
        model.inner.fc.weight.register_hook(lambda gradient: gradient / 2)
    assert_steps(compiled(distiller), distiller.student, own, [batch(0), batch(1)])


def test_steps_without_a_backward_are_not_kept() -> None:
    step = compiled(prepared(OnValues))
    outs = [step(batch(seed)) for seed in range(3)]
    assert len(kept) == 3
    del outs
    gc.collect()
    assert not kept


@pytest.mark.parametrize("inner", [Bounded, Table])
def test_inductor_leaves_the_memory_of_what_it_gives_alone(inner: Callable[[], nn.Module]) -> None:
    distiller, own = prepared(inner, rows=64), Net(inner)
    step = torch.compile(distiller, fullgraph=True)
    for seed in range(2):
        wanted, out = own(batch(seed, 64))["loss"], step(batch(seed, 64))
        for model in (own, distiller.student):
            model.zero_grad()
        wanted.backward()
        out.loss.backward()
        assert_same(wanted, out.loss, 1e-5)
        assert_same(gradients(own), gradients(distiller.student), 1e-5, atol=1e-6)
        assert_same(dict(own.named_buffers()), dict(distiller.student.named_buffers()))


class Looks(nn.Module):
    """Goes by a number of its inner module in a way that no graph can follow."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner, self.head = how, Counted(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        value, number, real = self.inner(x)
        factor = [1.0, 5.0][number] if self.how == "index" else math.sqrt(real)
        return {"loss": (self.head(value) * factor).mean()}


class Counted(OnValues):
    def forward(self, x: Tensor) -> Any:
        is_large = float(x.detach().abs().max()) > 50
        return super().forward(x), int(is_large), 3.0 if is_large else 2.0


@pytest.mark.parametrize("how", ["index", "root"])
def test_numbers_that_a_graph_cannot_follow_are_refused(how: str) -> None:
    with pytest.raises(CaptureError, match=r"Python code works on what is given by 'inner' in a way that a graph"):
        fxkd.prepare(Looks(how), None, HEAD, example_inputs=(batch(0),), return_records=True)


def test_a_picture_shows_it_as_a_module() -> None:
    kinds = {data["label"]: data["kind"] for _, data in fxkd.to_networkx(prepared(OnValues)).nodes(data=True)}
    assert kinds["inner"] == "module"


@pytest.mark.parametrize("way", ["graph", "compiled"])
@pytest.mark.parametrize("kind", ["ModuleInputs", "ModuleOutputs"])
def test_what_it_takes_and_gives_is_delivered(kind: str, way: str) -> None:
    teacher, own = Net(OnValues), Net(OnValues)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2)
    delivery = {"given": {"type": kind, "source": "inner", "max_keep_data": 1}}
    distiller = fxkd.prepare(Net(OnValues), teacher, {"distill_deliveries": delivery}, example_inputs=(batch(0),))

    def by_hand(x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            taken = teacher.eval().body(x)
            made = teacher.inner(taken)
        value = own.inner(taken) if kind == "ModuleInputs" else made
        return {"loss": own.head(value).square().mean() + own.body(x).mean()}

    step = compiled(distiller) if way == "compiled" else distiller
    for seed in range(3):
        wanted, out = by_hand(batch(seed))["loss"], step(batch(seed))
        own.zero_grad()
        distiller.zero_grad()
        wanted.backward()
        out.loss.backward()
        assert_same(wanted, out.loss)
        assert_same(gradients(own), gradients(distiller.student))


class Mixer(nn.Module):
    """Has a method that runs on values and uses parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def mix(self, x: Tensor) -> Tensor:
        return self.fc(x) * float(x.detach().abs().max())

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


MIX = {"student_recorders": {"m": {"type": "MethodOutputs", "source": f"{__name__}.Mixer.mix"}}}


@pytest.mark.parametrize("mode", ["plain", "autocast"])
def test_gradients_of_parameters_of_a_named_method(mode: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        distiller = prepared(Mixer, MIX)
        assert_steps(compiled(distiller), distiller.student, Net(Mixer), [batch(seed) for seed in range(3)])


@pytest.mark.parametrize("inner", [OnValues, Mixer])
def test_a_copy_is_compiled_for_itself_after_one_call(inner: Callable[[], nn.Module]) -> None:
    distiller = prepared(inner, MIX if inner is Mixer else HEAD)
    other = copy.deepcopy(distiller)
    with torch.no_grad():
        for parameter in other.student.parameters():
            parameter.mul_(2)
    own = [copy.deepcopy(one.student) for one in (distiller, other)]
    other(batch(0))
    steps = [compiled(one) for one in (distiller, other)]
    for index in (0, 1, 0):
        student = (distiller, other)[index].student
        assert_steps(steps[index], student, own[index], [batch(seed) for seed in range(2)])
