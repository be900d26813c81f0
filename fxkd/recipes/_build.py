"""The last step of every recipe: pairs of points with losses and connectors -> a checked spec."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fxkd.errors import SpecError
from fxkd.fitting import fitting
from fxkd.recipes._sides import Sides, extra_inputs
from fxkd.recipes._spots import Spot
from fxkd.spec import Spec

Config = Any  # a mapping, a list of them, or "auto"


def compared(
    student: Spot, teacher: Spot, loss: Mapping[str, Any], name: str = "", labels: str | None = None, **more: Any
) -> dict[str, Any]:
    """Write one pair; ``labels`` is the input that the loss reads as ``gt_labels``, ``more`` are its connectors."""
    pair: dict[str, Any] = {"student": dict(student.point), "teacher": dict(teacher.point), "loss": dict(loss)}
    pair["name"] = name or f"loss_{student.name}"
    if labels is not None:
        pair["args"] = {"gt_labels": {"from_input": labels}}
    return pair | {key: value for key, value in more.items() if value is not None}


def spec_of(sides: Sides, pairs: Sequence[Mapping[str, Any]], labels: str | None = None, **keys: Any) -> Spec:
    """Make the spec; with ``labels`` the student's own loss is the cross entropy of its output with them.

    A student that returns something other than one tensor is taken to return its own loss.
    """
    spec: dict[str, Any] = {"pairs": list(pairs), **keys}
    if labels is not None:
        spec["inputs"] = [*spec.get("inputs", ()), *extra_inputs(sides.student.model, labels)]
    if labels is not None and isinstance(sides.student.root.value, Tensor):
        args = {"input": "from_output", "target": {"from_input": labels}}
        spec.setdefault("student_loss", {"type": "CrossEntropyLoss", "args": args})
    return Spec.load(spec)


def fit(student: Spot, teacher: Spot) -> Config | None:
    """Choose what makes the student's value fit the teacher's: nothing, a config, or ``"auto"`` of unknown shapes."""
    if not student.shape or not teacher.shape:
        return "auto"
    return None if student.shape == teacher.shape else _fitting(student.shape, teacher.shape, student, teacher)


def fit_size(student: Spot, teacher: Spot) -> Config | None:
    """Choose what makes height and width of the student's map those of the teacher's, or nothing."""
    one, other = map_shape(student), map_shape(teacher)
    return None if one[2:] == other[2:] else _fitting(one, (*one[:2], *other[2:]), student, teacher)


def regressor(student: Spot, teacher: Spot, act_cfg: Mapping[str, Any] | None) -> list[Config] | Config:
    """Give a 1x1 convolution with batch normalisation to the teacher's channels, behind what fits the size."""
    mine, theirs = map_shape(student), map_shape(teacher)
    conv = {"type": "ConvModuleConnector", "in_channel": mine[1], "out_channel": theirs[1], "norm_cfg": {"type": "BN"}}
    return chain(fit_size(student, teacher), conv | {"act_cfg": act_cfg})


def align(student: Spot, teacher: Spot) -> Config | None:
    """Give a plain 1x1 convolution to the teacher's channels, or nothing where they are equal."""
    mine, theirs = map_shape(student)[1], map_shape(teacher)[1]
    conv = {"type": "ConvModuleConnector", "in_channel": mine, "out_channel": theirs, "act_cfg": None}
    return None if mine == theirs else conv


def chain(*steps: Config | None) -> Config | None:
    """Put connectors behind each other; nothing is left out."""
    flat = [one for step in steps if step is not None for one in (step if isinstance(step, list) else [step])]
    return flat if len(flat) > 1 else flat[0] if flat else None


def map_shape(spot: Spot) -> tuple[int, ...]:
    """Give the shape of a map (N, C, H, W).

    Raises:
        SpecError: It is no map, or not known.
    """
    if len(spot.shape) == 4:
        return spot.shape
    gives = f"gives {spot.shape}" if spot.shape else "gives no one tensor that is known beforehand"
    raise SpecError([f"points: {spot.point['source']!r} {gives}; this recipe needs feature maps (N, C, H, W)"])


def vectors(student: Spot, teacher: Spot) -> tuple[Spot, Spot]:
    """Refuse logits that are not (N, C)."""
    for side, spot in (("student", student), ("teacher", teacher)):
        if len(spot.shape) != 2:
            gives = f"gives {spot.shape}" if spot.shape else "gives no one tensor that is known beforehand"
            raise SpecError([f"{side}_point: {spot.point['source']!r} {gives}; this recipe needs logits (N, C)"])
    return student, teacher


def each(name: str, given: Any, count: int) -> list[Any]:
    """Give one value for each of ``count`` pairs: the same number (or schedule), or those of a list.

    Raises:
        SpecError: The list has another length.

    >>> each("weight", 0.5, 2), each("weight", [1, 2], 2)
    ([0.5, 0.5], [1, 2])
    """
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise SpecError([f"{name}: has {len(given)} numbers for {count} pairs of points; give as many, or one"])
    return list(given)


def halved(weight: Any, count: int) -> list[Any]:
    """Give each pair half the weight of the next deeper one; a list is taken as it is.

    >>> halved(1.0, 3)
    [0.25, 0.5, 1.0]
    """
    if not isinstance(weight, (int, float)):
        return each("weight", weight, count)
    return [weight / 2**index for index in reversed(range(count))]


def _fitting(given: tuple[int, ...], wanted: tuple[int, ...], student: Spot, teacher: Spot) -> Config:
    try:
        return fitting(given, wanted)
    except SpecError as error:
        places = f"{student.point['source']!r} and {teacher.point['source']!r}"
        raise SpecError([f"points: {places}: {error}"]) from error
