"""Functions that run on values alone where nothing can be right: refused, with what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxkd
from fxkd.errors import CaptureError, GuardError
from tests.support.oracle import assert_same

ME = __name__
pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def scaled(x: Tensor) -> Tensor:
    return x * 2 if float(x.detach().sum()) < 1e9 else x


def rows(x: Tensor) -> list[Tensor]:
    return [row for row in x.detach() if float(row[0]) > 0]


def moody(x: Tensor) -> Any:
    return x.detach() * float(x[0, 0]) if float(x[0, 0]) > 0 else None


def fickle(x: Tensor) -> Any:
    return moody(x)


def several(x: Tensor) -> Tensor:
    return (x.detach()[:, 0] > 0).nonzero()[:, 0]


def widening(x: Tensor) -> Tensor:
    return x.detach().repeat(1, 2) if float(x.detach()[0, 0]) > 3 else x.detach()


class Special:
    """Is no tensor, number or container."""

    factor = 2.0


def special(x: Tensor) -> Special:
    x.detach().sum().item()
    return Special()


class Net(nn.Module):
    """Sends a hidden value through a function of this module."""

    def __init__(self, use: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.use = nn.Linear(4, 4), use

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.use(self.fc(x)).square().mean()}


def use_scaled(h: Tensor) -> Tensor:
    return scaled(h)


def use_rows(h: Tensor) -> Tensor:
    return h + sum(row.sum() for row in rows(h))


def use_moody(h: Tensor) -> Tensor:
    given = moody(h.detach())
    return h if given is None else h * given


def use_fickle(h: Tensor) -> Tensor:
    given = fickle(h.detach())
    return h if given is None else h * given


def use_several(h: Tensor) -> Tensor:
    chosen = several(h)
    return h[chosen] if len(chosen) > 1 else h


def use_widening(h: Tensor) -> Tensor:
    return h.sum() * widening(h).sum()


def use_special(h: Tensor) -> Tensor:
    return h * special(h).factor


def batch(seed: int = 0) -> Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))


def prepared(name: str, **options: Any) -> fxkd.Distiller:
    spec = {"student_recorders": {"f": {"type": "FunctionOutputs", "source": f"{ME}.{name}"}}}
    net = Net(globals()[f"use_{name}"])
    return fxkd.prepare(net, None, spec, example_inputs=(batch(),), **options)


def compiled(name: str) -> Any:
    return torch.compile(prepared(name), fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("name", ["scaled", "rows", "moody"])
def test_gradients_and_changing_forms_are_right_without_compilation(name: str) -> None:
    distiller = prepared(name)
    own = Net(globals()[f"use_{name}"])
    for seed in range(6):
        x = batch(seed) * (-9) ** (seed % 2)
        wanted, out = own(x)["loss"], distiller(x)
        own.zero_grad()
        distiller.zero_grad()
        wanted.backward()
        out.loss.backward()
        assert_same(wanted, out.loss)
        assert_same([p.grad for p in own.parameters()], [p.grad for p in distiller.student.parameters()])


def test_a_result_that_no_operator_can_give() -> None:
    with pytest.raises(
        torch._dynamo.exc.InternalTorchDynamoError,
        match=r"CaptureError: .*special' gives a Special, which one operator of a compiled graph cannot",
    ):
        compiled("special")(batch())


def test_a_form_that_was_not_seen_stops_a_compiled_graph() -> None:
    step = compiled("fickle")
    step(batch())
    with pytest.raises(GuardError, match=r"fickle' gave no tensors at this step.*compile=False"):
        step(90 * batch())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.InternalTorchDynamoError, match=r"CaptureError: .*gives now this, now that"):
        step(batch())


def test_a_size_that_was_not_seen_stops_a_compiled_graph() -> None:
    step = compiled("widening")
    step(batch())
    message = r"widening' gave \(4, 8\) of torch.float32 at this step, .* only while it gives \(4, 4\)"
    with pytest.raises(GuardError, match=message):
        step(-90 * batch())


def test_sizes_that_a_compiled_graph_has_to_know(caplog: pytest.LogCaptureFixture) -> None:
    message = r"sizes of what '.*several' gives depend on values.*or padding\), or use compile=False"
    options = {"fullgraph": True, "backend": "aot_eager"}
    with pytest.raises(CaptureError, match=message):
        prepared("several", compile=options)(batch())
    caplog.clear()
    with pytest.raises(Exception, match="data-dependent"):
        torch.compile(prepared("several"), **options)(batch())  # type: ignore[call-overload]
    assert "several' gives depend on values" in caplog.text


def test_gradients_flow_through_the_operator() -> None:
    distiller, own = prepared("scaled"), Net(use_scaled)
    step = torch.compile(distiller, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        wanted, out = own(batch(seed))["loss"], step(batch(seed))
        own.zero_grad()
        distiller.zero_grad()
        wanted.backward()
        out.loss.backward()
        assert_same(wanted, out.loss)
        assert_same([p.grad for p in own.parameters()], [p.grad for p in distiller.student.parameters()])


def halves(x: Tensor) -> tuple[Tensor, Tensor | None]:
    return x * 2, (x / 2 if x.shape[0] > 4 else None)


class TakesHalves(nn.Module):
    """Goes by whether there is a second value."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = halves(self.fc(x))
        return first if second is None else first + second


def test_a_compiled_graph_stops_where_a_result_is_built_otherwise() -> None:
    point = {"type": "FunctionOutputs", "source": f"{__name__}.halves"}
    recorded = fxkd.record(TakesHalves(), {"halves": point}, torch.ones(2, 4))
    assert_same(recorded.model(torch.ones(6, 4)), recorded(torch.ones(6, 4))[0])
    alone = fxkd.record(TakesHalves(), {"halves": point}, torch.ones(2, 4))
    compiled = torch.compile(alone, backend="aot_eager", fullgraph=True)
    assert_same(recorded.model(torch.ones(2, 4)), compiled(torch.ones(2, 4))[0])
    with pytest.raises(Exception, match=r"size 0 of an input is 2, not 6"):
        compiled(torch.ones(6, 4))


TABLES: dict[int, Tensor] = {}


def table(x: Tensor) -> Tensor:
    if x.shape[0] not in TABLES:
        TABLES[x.shape[0]] = torch.arange(x.shape[0], dtype=torch.float32)[:, None]
    return x + TABLES[x.shape[0]]


def test_a_cache_of_a_named_function_holds_no_tensor_without_values() -> None:
    class Model(TakesHalves):
        def forward(self, x: Tensor) -> Tensor:
            return table(self.fc(x))

    recorded = fxkd.record(Model(), {"t": {"type": "FunctionOutputs", "source": f"{__name__}.table"}}, torch.ones(2, 4))
    assert {type(value) for value in TABLES.values()} == {Tensor}
    assert_same(recorded.model(torch.ones(5, 4)), recorded(torch.ones(5, 4))[0])
