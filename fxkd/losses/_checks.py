"""What the losses refuse, and how they say it: checks of options and of shapes, none of which reads a tensor."""

from collections.abc import Iterable, Mapping
from numbers import Real

from torch import Tensor, nn

from fxkd.errors import SpecError, did_you_mean


def refusal(owner: nn.Module, problem: str) -> SpecError:
    """Make the error that names the loss and its ``problem``."""
    return SpecError([f"{type(owner).__name__}: {problem}"])


def check_choice(owner: nn.Module, name: str, given: object, allowed: Iterable[object]) -> None:
    """Refuse an option whose value is not one of ``allowed``."""
    choices = list(allowed)
    if given not in choices:
        near = did_you_mean(str(given), map(str, choices))
        raise refusal(owner, f"{name} is {given!r}; it can be {', '.join(map(repr, choices))}.{near}")


def check_numbers(owner: nn.Module, **options: object) -> None:
    """Refuse options that are not real numbers."""
    for name, value in options.items():
        if not isinstance(value, Real):
            hint = " YAML reads 1e-3 as text: write 1.0e-3." if isinstance(value, str) else ""
            raise refusal(owner, f"{name} is {value!r}; it must be a number.{hint}")


def check_temperature(owner: nn.Module, tau: float) -> None:
    """Refuse a temperature that is not a number above zero."""
    check_numbers(owner, tau=tau)
    if not tau > 0:
        raise refusal(owner, f"tau is {tau!r}; a temperature must be above 0.")


def check_same_shape(owner: nn.Module, **values: Tensor) -> None:
    """Refuse a student's and a teacher's value whose shapes differ."""
    _check_tensors(owner, values)
    student, teacher = values.values()
    if student.shape != teacher.shape:
        raise _mismatch(owner, "they must be equal", values)


def check_same_space(owner: nn.Module, **values: Tensor) -> None:
    """Refuse a student's and a teacher's value that differ in more than dim 1, the channels."""
    _check_tensors(owner, values)
    student, teacher = values.values()
    if student.shape[:1] != teacher.shape[:1] or student.shape[2:] != teacher.shape[2:]:
        raise _mismatch(owner, "all but the channels (dim 1) must be equal", values)


def _check_tensors(owner: nn.Module, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            hint = "; pick one part of it with 'data_idx'" if isinstance(value, (tuple, list, Mapping)) else ""
            raise refusal(owner, f"{name} is a {type(value).__name__}, not a tensor{hint}.")


def _mismatch(owner: nn.Module, rule: str, values: dict[str, Tensor]) -> SpecError:
    shapes = " and ".join(f"{name} has shape {tuple(value.shape)}" for name, value in values.items())
    return refusal(
        owner,
        f"{shapes}; {rule}. Put a connector on one side: ConvModuleConnector changes the channels (and, with a stride, "
        "the space), LinearConnector the last axis.",
    )
