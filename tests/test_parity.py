"""Graph backend, eager backend and plain hooks agree: losses, outputs, records, all gradients, buffers, weights."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import fxkd
from tests.support.cases import CASES, REAL_CASES, Case, every
from tests.support.oracle import Training, assert_same, run_with_hooks, seed_everything, train, train_with_hooks

ALL = CASES | REAL_CASES
CAPTURED, RUN = 2, 5  # batch sizes: what is captured on two samples is run on five


def prepared(case: Case, spec: str, backend: str) -> fxkd.Distiller:
    """Prepare fresh models of a case; the graph backend captures on a batch of another size than is run."""
    args, kwargs = case.inputs(CAPTURED)
    example = fxkd.Inputs(args, kwargs) if backend == "graph" else None
    torch.manual_seed(0)
    return fxkd.prepare(
        case.build_student().train(),
        case.build_teacher(),
        case.spec(spec),
        example_inputs=example,
        backend=backend,
        verify=False,  # hooks tell
        return_records=True,
    )


def parts(distiller: fxkd.Distiller) -> dict[str, nn.Module]:
    return {"student": distiller.student, "connectors": distiller.connectors, "losses": distiller.losses}


def trained(distiller: fxkd.Distiller, case: Case) -> Training:
    distiller.train()
    return train(
        distiller,
        trained=parts(distiller),
        frozen=distiller.teachers,
        batches=case.batches(3, RUN),
        with_output=True,
    )


def in_turn() -> list[object]:
    """All specs of the small models; of the library models one each, by turns.

    The zoo compares what else is recorded of library models, and ``one_each`` what is delivered to them.
    """
    chosen = {name: list(case.specs)[index % len(case.specs)] for index, (name, case) in enumerate(REAL_CASES.items())}
    return [
        pytest.param(name, spec, marks=[pytest.mark.slow] * (spec != chosen.get(name, spec)))
        for name, spec in every(ALL)
    ]


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize(("name", "spec"), in_turn())
def test_training_equals_hooks(name: str, spec: str, backend: str) -> None:
    case = ALL[name]
    distiller = prepared(case, spec, backend)
    hooks = train_with_hooks(
        case,
        case.spec(spec),
        distiller.connectors,
        distiller.losses,
        batches=case.batches(3, RUN),
        with_output=True,
        always_copy=backend == "eager",
    )
    assert_same(hooks, trained(distiller, case))
    assert len(distiller.programs) == (backend == "graph"), "the graph of two samples runs five"


def one_each() -> list[object]:
    """The last spec of every model; the others are the slow part."""
    chosen = {name: list(case.specs)[-1] for name, case in ALL.items()}
    return [pytest.param(name, spec, marks=[pytest.mark.slow] * (spec != chosen[name])) for name, spec in every(ALL)]


@pytest.mark.parametrize("backend", ["graph", "eager"])
@pytest.mark.parametrize(("name", "spec"), one_each())
def test_eval_equals_hooks(name: str, spec: str, backend: str) -> None:
    case = ALL[name]
    distiller = prepared(case, spec, backend)
    args, kwargs = case.inputs(CAPTURED)
    distiller.eval()(*args, **kwargs)  # captured in this mode too
    captured = len(distiller.programs)
    own = {side: copy.deepcopy(module) for side, module in (parts(distiller) | distiller.teachers).items()}
    args, kwargs = case.inputs(RUN, seed=3)
    results: list[Any] = []
    for run in (
        lambda: run_with_hooks(
            own["student"],
            own["teacher"],
            case.spec(spec),
            args,
            kwargs,
            own["connectors"],
            own["losses"],
            always_copy=backend == "eager",
        ),
        lambda: distiller(*args, **kwargs),
    ):
        seed_everything(7)
        result = run()
        results.append((result.loss, dict(result.losses), result.output, result.records))
    assert_same(*results)
    assert len(distiller.programs) == captured, "the graph of two samples runs five"
