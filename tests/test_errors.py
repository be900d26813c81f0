"""Tests of fxkd/errors.py."""

import pickle

import pytest

from fxkd.errors import (
    CaptureError,
    DeployError,
    DrawError,
    FxkdError,
    GuardError,
    PointError,
    Problems,
    SpecError,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (SpecError, ValueError),
        (PointError, LookupError),
        (CaptureError, RuntimeError),
        (GuardError, RuntimeError),
        (DrawError, RuntimeError),
        (DeployError, RuntimeError),
    ],
)
def test_one_family(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, FxkdError)
    assert issubclass(error, builtin)


def test_one_problem_is_the_message() -> None:
    assert str(SpecError(["tau is 0"])) == "tau is 0"


def test_several_problems_are_listed() -> None:
    error = SpecError(["tau is 0", "no loss"])
    assert error.problems == ("tau is 0", "no loss")
    assert str(error) == "2 problems:\n  - tau is 0\n  - no loss"


def test_did_you_mean() -> None:
    known = ["layer1.0.conv1", "layer1.0.conv2", "fc"]
    assert did_you_mean("layer1.0.conv", known) == " Did you mean 'layer1.0.conv2' or 'layer1.0.conv1'?"
    assert did_you_mean("head", known) == ""
    assert did_you_mean("fc1", (name for name in known)) == " Did you mean 'fc'?"


def test_problems_are_raised_together() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add("student_recorders.feat.source", "no module 'layer9'")
    problems.add("distill_losses.loss_kl", "no loss is called 'KL'")
    with pytest.raises(
        SpecError, match=r"2 problems:\n  - student_recorders\.feat\.source: no module 'layer9'\n  - distill"
    ):
        problems.raise_if_any()


def test_an_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(SpecError(["tau is 0", "no loss"])))
    assert error.problems == ("tau is 0", "no loss")
