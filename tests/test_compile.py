"""The whole step as one compiled graph: no graph break, at most one recompilation, the numbers of the eager step."""

from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._dynamo.testing import CompileCounterWithBackend

import fxkd
from tests.support.cases import CASES, Case, every
from tests.support.oracle import assert_same, seed_everything, snapshot

STEPS, BATCHES = 50, (2, 5)


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def prepared(case: Case, spec: str, **options: Any) -> fxkd.Distiller:
    example = fxkd.Inputs(*case.inputs(BATCHES[0]))
    torch.manual_seed(0)
    student = case.build_student().train()
    return fxkd.prepare(student, case.build_teacher(), case.spec(spec), example_inputs=example, verify=False, **options)


def gradients(distiller: torch.nn.Module, case: Case, batch: int, step: int) -> dict[str, object]:
    """Run one step and give its loss, its losses and every gradient."""
    args, kwargs = case.inputs(batch, seed=step)
    seed_everything(step)
    out = distiller(*args, **kwargs)
    if out.loss is not None:
        distiller.zero_grad()
        out.loss.backward()
    grads = {name: snapshot(parameter.grad) for name, parameter in distiller.named_parameters()}
    return {"loss": snapshot(out.loss), "losses": snapshot(out.losses), "gradients": grads}


def sweep() -> list[object]:
    """One spec (the one with a delivery, if there is one) of every other model; the others are the slow part."""
    chosen = {name: list(case.specs)[-1] for name, case in list(CASES.items())[::2]}
    return [
        pytest.param(name, spec, marks=() if spec == chosen.get(name) else pytest.mark.slow)
        for name, spec in every(CASES)
    ]


@pytest.mark.parametrize(("name", "spec"), sweep())
def test_one_graph_and_at_most_one_recompilation(name: str, spec: str) -> None:
    case = CASES[name]
    distiller = prepared(case, spec)
    compiled_graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(distiller, fullgraph=True, backend=compiled_graphs)
    for step in range(STEPS):
        args, kwargs = case.inputs(BATCHES[step % 2], seed=step)
        compiled(*args, **kwargs)
    assert compiled_graphs.frame_count <= 2, "more than one compilation and one for the other batch size"
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize(
    ("name", "spec"),
    [("cnn", "modules"), ("twice", "deliver_function"), pytest.param("vit", "modules", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("options", [{"fullgraph": True, "backend": "aot_eager"}, True], ids=["whole", "joint graph"])
def test_compiled_equals_eager(name: str, spec: str, options: object) -> None:
    """Both ways: the user compiles the distiller, and prepare compiles the joint graph (``compile=``)."""
    case = CASES[name]
    eager = prepared(case, spec)
    if options is True:
        compiled: torch.nn.Module = prepared(case, spec, compile={"backend": "aot_eager", "fullgraph": True})
    else:
        compiled = torch.compile(prepared(case, spec), **options)  # type: ignore[call-overload]
    for step, batch in enumerate(BATCHES):
        assert_same(
            gradients(eager, case, batch, step), plain(gradients(compiled, case, batch, step)), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(
    ("name", "spec"), [("arguments", "modules"), pytest.param("twice", "modules", marks=pytest.mark.slow)]
)
def test_inductor(name: str, spec: str) -> None:
    case = CASES[name]
    eager, compiled = prepared(case, spec), torch.compile(prepared(case, spec), fullgraph=True, backend="inductor")
    with torch._inductor.config.patch(fallback_random=True):  # draw what eager mode draws
        for step, batch in enumerate(BATCHES):
            wanted, found = gradients(eager, case, batch, step), gradients(compiled, case, batch, step)
            assert_same(wanted, plain(found), rtol=1e-4, atol=1e-6)


def plain(step: dict[str, object]) -> dict[str, object]:
    """Take off the prefix that torch.compile puts before names."""
    grads = {name.removeprefix("_orig_mod."): value for name, value in step["gradients"].items()}  # type: ignore[attr-defined]
    return step | {"gradients": grads}
