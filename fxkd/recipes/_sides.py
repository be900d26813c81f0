"""Both models of a recipe, and the pairs of points that its losses compare."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fxkd.errors import Problems, SpecError, did_you_mean
from fxkd.recipes import _points
from fxkd.recipes._seen import Call, Seen, inputs_of, look
from fxkd.recipes._spots import Spot, given_spot, spot_of
from fxkd.teachers import one_teacher, teachers_in, what_it_is

Pairs = list[tuple[Spot, Spot]]
Points = Sequence[tuple[Any, Any]]
HOW = "pass points=[('<path in the student>', '<path in the teacher>'), ...]"


@dataclass(frozen=True, slots=True)
class Sides:
    """What a student and a teacher did in one run each.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> sides = Sides.of(net, {"big": nn.Sequential(nn.Linear(4, 2))}, torch.zeros(5, 4))
    >>> [spot.point["source"] for spot in sides.logits()]
    ['2', 'big.0']
    """

    student: Seen
    teacher: Seen

    @classmethod
    def of(cls, student: Any, teacher: Any, example_inputs: Any, labels: str | None = None) -> "Sides":
        """Run both models; ``teacher`` may be a mapping with one entry, or None for a student that is its own.

        Raises:
            SpecError: A model is none, or there are several teachers.
            CaptureError: A model does not run on the inputs.
        """
        problems = Problems()
        if not isinstance(student, nn.Module):
            problems.add("student", f"is {what_it_is(student)}; give an nn.Module")
        named = teachers_in(one_teacher(teacher, problems))
        if len(named) > 1:
            names = ", ".join(map(repr, named))
            what = f"there are several ({names}), and a recipe is for one: give {{name: teacher}}, one recipe for each"
            problems.add("teacher", what)
        problems.raise_if_any()
        inputs = inputs_of(example_inputs, extra_inputs(student, labels))
        of_student = look("student", student, inputs)
        if not named:
            return cls(of_student, Seen("teacher", student, of_student.root, of_student.image))
        (name, one), is_named = next(iter(named.items())), isinstance(teacher, Mapping)
        return cls(of_student, look("teacher", one, inputs, name if is_named else ""))

    def logits(self, student_point: Any = None, teacher_point: Any = None) -> tuple[Spot, Spot]:
        """Give the logits of both, which must be equal in shape."""
        student, teacher = self._one(_points.logits, student_point, teacher_point)
        if student.shape != teacher.shape and student.shape and teacher.shape:
            what = f"gives {student.shape} and the teacher's {teacher.point['source']!r} gives {teacher.shape}"
            raise SpecError(
                [f"student_point: {student.point['source']!r} {what}: logits of the same classes are compared"]
            )
        return student, teacher

    def pooled(self, student_point: Any = None, teacher_point: Any = None) -> tuple[Spot, Spot]:
        """Give what the classifiers of both take."""
        return self._one(_points.pooled, student_point, teacher_point)

    def _one(self, find: Callable[[Seen], Spot], student_point: Any, teacher_point: Any) -> tuple[Spot, Spot]:
        found = []
        for seen, point in ((self.student, student_point), (self.teacher, teacher_point)):
            found.append(find(seen) if point is None else given_spot(point, f"{seen.side}_point", seen))
        return found[0], found[1]

    def stages(self, points: Points | None, count: int | None = None) -> Pairs:
        """Pair the stages of both by the size of their maps, shallow to deep; ``count`` takes the last."""
        return self._pairs(lambda stage: stage, "feature maps", points, count)

    def norms(self, points: Points | None, count: int | None = None) -> Pairs:
        """Pair in the same way what the last batch normalisation of each stage gives."""
        what = "stages that end in a BatchNorm2d without an activation in it, with feature maps"
        return self._pairs(_points.last_norm, what, points, count)

    def _pairs(self, part: Callable[[Call], Call | None], what: str, points: Points | None, count: int | None) -> Pairs:
        if points is not None:
            return self._given(points)
        if count is not None and (type(count) is not int or count < 1):
            raise SpecError([f"stages: is {count!r}; give how many of the last stages are compared, or None for all"])
        mine, theirs = (_of_stages(seen, part) for seen in (self.student, self.teacher))
        common = [size for size in mine if size in theirs]
        if not common:
            there = f"student: {_points.described(self.student)}; teacher: {_points.described(self.teacher)}"
            raise SpecError([f"points: the models have no {what} of one size in common ({there}); {HOW}"])
        if count is not None and count > len(common):
            raise SpecError([f"stages: is {count}, and the models have {len(common)} of one size in common; {HOW}"])
        return [
            (spot_of(mine[size], self.student), spot_of(theirs[size], self.teacher)) for size in common[-(count or 0) :]
        ]

    def _given(self, points: Any) -> Pairs:
        if not isinstance(points, (list, tuple)) or not points or not all(map(_is_pair, points)):
            raise SpecError([f"points: is {points!r}; give a list of pairs (point of student, point of teacher)"])
        pairs: Pairs = []
        for index, (student, teacher) in enumerate(points):
            one = given_spot(student, f"points[{index}], student", self.student)
            other = given_spot(teacher, f"points[{index}], teacher", self.teacher)
            pairs += _levels(one, other)
        return pairs


def extra_inputs(student: nn.Module, labels: str | None) -> tuple[str, ...]:
    """Name the inputs of a call that the student itself does not take."""
    if labels is not None and not isinstance(labels, str):
        raise SpecError([f"labels: is {labels!r}; give the name of the argument of a call that holds them"])
    taken = inspect.signature(student.forward).parameters
    return () if labels is None or labels in taken else (labels,)


def choose(name: str, given: object, allowed: Sequence[str]) -> None:
    """Refuse an option that is none of ``allowed``."""
    if given not in allowed:
        there = ", ".join(map(repr, allowed))
        raise SpecError([f"{name}: is {given!r}; it can be {there}." + did_you_mean(given, allowed)])


def _of_stages(seen: Seen, part: Callable[[Call], Call | None]) -> dict[tuple[int, int], Call]:
    parts = {size: part(stage) for size, stage in _points.stages(seen).items()}
    return {size: call for size, call in parts.items() if call is not None}


def _is_pair(given: object) -> bool:
    return isinstance(given, (list, tuple)) and len(given) == 2


def _levels(student: Spot, teacher: Spot) -> Pairs:
    """Take apart two points that give several maps each, as many, such as the necks of two detectors."""
    values = student.value, teacher.value
    if not all(isinstance(value, (list, tuple)) and all(isinstance(one, Tensor) for one in value) for value in values):
        return [(student, teacher)]
    if len(values[0]) != len(values[1]):
        return [(student, teacher)]
    return [
        (Spot({**student.point, "data_idx": index}, one), Spot({**teacher.point, "data_idx": index}, other))
        for index, (one, other) in enumerate(zip(*values, strict=True))
    ]
