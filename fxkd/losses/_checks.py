"""What the losses refuse, and how they say it: checks of options and of shapes, none of which reads a tensor."""

import warnings
from collections.abc import Iterable, Mapping
from numbers import Real

from torch import Tensor, nn

from fxkd.errors import SpecError, SpecWarning, did_you_mean

IGNORED = -100  # the label of a sample that does not count, as in torch.nn.functional.cross_entropy


def refusal(owner: nn.Module, problem: str) -> SpecError:
    """Make the error that names the loss and its ``problem``."""
    return SpecError([f"{type(owner).__name__}: {problem}"])


def warn_compat(owner: nn.Module, now: str, then: str) -> None:
    """Say once, as a loss is built, that an option of it does what it did in MMRazor, and how to get the other."""
    warnings.warn(f"{type(owner).__name__}: {now}; compat=False gives {then}.", SpecWarning, stacklevel=3)


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


def check_temperature(owner: nn.Module, tau: float, name: str = "tau") -> None:
    """Refuse a temperature that is not a number above zero."""
    check_numbers(owner, **{name: tau})
    if not tau > 0:
        raise refusal(owner, f"{name} is {tau!r}; a temperature must be above 0.")


def check_whole(owner: nn.Module, **options: object) -> None:
    """Refuse options that are not whole numbers above zero."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise refusal(owner, f"{name} is {value!r}; it must be a whole number above 0.")


def check_flags(owner: nn.Module, **options: object) -> None:
    """Refuse options that are neither True nor False."""
    for name, value in options.items():
        check_choice(owner, name, value, (True, False))


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


def check_same_batch(owner: nn.Module, **values: Tensor) -> None:
    """Refuse a student's and a teacher's value that differ in dim 0, the samples, or have none."""
    _check_tensors(owner, values)
    student, teacher = values.values()
    if not student.ndim or not teacher.ndim or student.shape[0] != teacher.shape[0]:
        shapes = " and ".join(f"{name} has shape {tuple(value.shape)}" for name, value in values.items())
        raise refusal(owner, f"{shapes}; dim 0, the samples, must be equal.")


def check_tensor(owner: nn.Module, **values: Tensor) -> None:
    """Refuse what is no tensor, or has no dim 0."""
    _check_tensors(owner, values)
    for name, value in values.items():
        if not value.ndim:
            raise refusal(owner, f"{name} is a single number; it needs a dim of samples, (N, ...).")


def check_logits(owner: nn.Module, /, what: str = "logits (N, C)", **values: Tensor) -> None:
    """Refuse what has not two dims."""
    _check_tensors(owner, values)
    for name, value in values.items():
        if value.ndim != 2:
            raise refusal(owner, f"{name} has shape {tuple(value.shape)}; it takes {what}.")


def check_maps(owner: nn.Module, **values: Tensor) -> None:
    """Refuse what is not of the form (N, C, H, W)."""
    _check_tensors(owner, values)
    for name, value in values.items():
        if value.ndim != 4:
            raise refusal(owner, f"{name} has shape {tuple(value.shape)}; it takes maps (N, C, H, W).")


def check_labels(owner: nn.Module, gt_labels: Tensor, samples: int) -> None:
    """Refuse what is not one class index a sample, of shape (N,) or (N, 1)."""
    _check_tensors(owner, {"gt_labels": gt_labels})
    if tuple(gt_labels.shape) not in ((samples,), (samples, 1)) or gt_labels.is_floating_point():
        raise refusal(
            owner,
            f"gt_labels is {gt_labels.dtype} of shape {tuple(gt_labels.shape)}; it takes {samples} class indices, "
            f"of shape ({samples},) or ({samples}, 1). Of soft labels take the argmax.",
        )


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
