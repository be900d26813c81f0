"""The recipe that hands over what the teacher decides."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fxkd.errors import PointError, SpecError
from fxkd.points import find_method
from fxkd.recipes._registry import recipe
from fxkd.spec import Spec

Teacher = nn.Module | Mapping[str, nn.Module]


@recipe("lad")
def lad(
    student: nn.Module | None,
    teacher: Teacher | None,
    example_inputs: Any = None,
    *,
    methods: Sequence[str],
    max_keep_data: int = 10000,
) -> Spec:
    """Hand over what the teacher assigns: each of ``methods`` gives the student what it gave the teacher.

    There is no loss but the student's own, on the teacher's assignment of labels.

    Args:
        student: The model that learns.
        teacher: The model whose methods decide.
        example_inputs: Not needed: nothing is looked for.
        methods: Paths of the methods, ``module.Class.method``: for the paper's detector that which assigns targets and
            that which assigns them again.
        max_keep_data: How many calls of each are kept at most in a step.

    Raises:
        SpecError: There are no methods, or a path names none.

    From "Improving Object Detection by Label Assignment Distillation", arXiv 2108.10520.

    >>> lad(None, None, methods=["fractions.Fraction.limit_denominator"]).distill_deliveries
    {'Fraction_limit_denominator': Delivery(type='MethodOutputs', path='fractions.Fraction.limit_denominator', ...)}
    """
    if not isinstance(methods, (list, tuple)) or not methods:
        raise SpecError([f"methods: is {methods!r}; give a list of paths such as 'package.module.Class.method'"])
    problems = list(filter(None, (_no_method(index, path) for index, path in enumerate(methods))))
    if problems:
        raise SpecError(problems)
    deliveries = {
        "_".join(path.split(".")[-2:]): {"type": "MethodOutputs", "method_path": path, "max_keep_data": max_keep_data}
        for path in methods
    }
    return Spec.load({"distill_deliveries": deliveries})


def _no_method(index: int, path: Any) -> str | None:
    try:
        find_method(path)
    except PointError as error:
        return f"methods[{index}]: {error}"
    return None
