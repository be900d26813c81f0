"""What a data-free distillation is given, read and checked before either of its distillers is made."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxkd import registry
from fxkd.capture import Inputs
from fxkd.errors import Problems, SpecError, did_you_mean
from fxkd.preparation import prepare
from fxkd.spec import Spec
from fxkd.teachers import what_it_is

KEY = "data_free"
OWN = ("generator", "generator_spec", "student_iter", "student_train_first", "joint")
SIDES = ("student", "generator")


def check_steps(student_iter: object, student_train_first: object, joint: object, problems: Problems) -> None:
    """Note what cannot be the order of the steps."""
    if not isinstance(student_iter, int) or isinstance(student_iter, bool) or student_iter < 1:
        problems.add("student_iter", f"is {student_iter!r}; give a whole number above 0")
    for name, value in (("student_train_first", student_train_first), ("joint", joint)):
        if not isinstance(value, bool):
            problems.add(name, f"is {value!r}; give True or False")
    if joint is True and (student_iter != 1 or student_train_first is True):
        order = "both learn from the same images, once, and the generator is updated first"
        problems.add("joint", f"is True: {order}; leave 'student_iter' and 'student_train_first' out, or 'joint'")


def check_teachers(teachers: object, problems: Problems) -> None:
    """Note that there is none."""
    if teachers is None:
        problems.add("teachers", "is None; without data a student learns from a teacher, or several by name")


def check_options(options: Mapping[str, Any], problems: Problems) -> None:
    """Note options that ``fxkd.prepare`` does not take."""
    known = [name for name, one in inspect.signature(prepare).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in [name for name in options if name not in known]:
        there = ", ".join(map(repr, known))
        problems.add(name, f"unknown option; fxkd.prepare takes {there}." + did_you_mean(name, known))


def check_optimizers(optimizers: Any) -> None:
    """Refuse what is not one optimizer for each side."""
    if not isinstance(optimizers, Mapping) or set(optimizers) != set(SIDES):
        held = ", ".join(map(repr, optimizers)) if isinstance(optimizers, Mapping) else what_it_is(optimizers)
        given = held or "an empty mapping"
        raise SpecError([f"optimizers: is {given}; give {{'student': optimizer, 'generator': optimizer}}"])


def read_data_free(spec: Any, has_generator: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the key ``data_free`` out of a spec; give the rest, and what stands there.

    Raises:
        SpecError: There is no such key, or one in it is missing or means nothing.
    """
    held = spec.get(KEY) if isinstance(spec, Mapping) else None
    there = ", ".join(map(repr, OWN))
    if not isinstance(held, Mapping):
        raise SpecError([f"{KEY}: is not there; give a spec that is a mapping and has this key, with {there}"])
    problems = Problems()
    for key in [key for key in held if key not in OWN]:
        problems.add(f"{KEY}.{key}", f"unknown key; there is {there}." + did_you_mean(key, OWN))
    if not has_generator and held.get("generator") is None:
        problems.add(f"{KEY}.generator", "is not there; describe one, or give a module as 'generator'")
    if held.get("generator_spec") is None:
        problems.add(f"{KEY}.generator_spec", "is not there; say by which losses the generator learns")
    problems.raise_if_any()
    return {key: value for key, value in spec.items() if key != KEY}, dict(held)


def built(generator: Any, problems: Problems) -> nn.Module:
    """Build a generator that is described; note one that is none, or has nothing to train."""
    built = generator
    if isinstance(generator, Mapping):
        with noted("generator", problems):
            built = registry.generators.build(generator)
    elif not isinstance(generator, nn.Module):
        problems.add("generator", f"is {what_it_is(generator)}; give an nn.Module, or the config of one")
    if isinstance(built, nn.Module) and not any(parameter.requires_grad for parameter in built.parameters()):
        problems.add("generator", "has no parameter that requires gradients, so it cannot learn what to draw")
    return built  # type: ignore[no-any-return]


def read(source: Any, *, through_teacher: bool) -> Spec:
    """Read a spec; what the student returns is not asked for, and the generator's lets gradients through the teacher.

    Raises:
        SpecError: It is none, or asks for what there is not without data.
    """
    spec, problems = Spec.load(source), Problems()
    if spec.inputs:
        problems.add("inputs", "the losses have images and no other values; take it out")
    if spec.teacher_trainable:
        problems.add("teacher_trainable", "is true; without data a teacher stays as it is")
    if spec.stop_epoch is not None:
        problems.add("stop_epoch", "nothing would train after it; take it out, and end the training instead")
    if not any("loss" in name for name in spec.distill_losses):
        problems.add("distill_losses", "has no loss to train on, whose name contains 'loss'")
    problems.raise_if_any()
    return replace(spec, return_output=False, teacher_gradients=through_teacher or spec.teacher_gradients)


@contextmanager
def noted(where: str, problems: Problems) -> Iterator[None]:
    """Collect what is raised inside; ``where`` begins each problem."""
    try:
        yield
    except SpecError as error:
        problems.found += [f"{where}: {problem}" if where else problem for problem in error.problems]


def modules(*given: Any) -> list[nn.Module]:
    """List the models, of which some may be given by name."""
    held = [one for value in given for one in (value.values() if isinstance(value, Mapping) else (value,))]
    return [one for one in held if isinstance(one, nn.Module)]


def asking_for_gradients(call: Inputs) -> Inputs:
    """Give the call as a generator makes it: with tensors that gradients flow to."""

    def tracked(value: Tensor) -> Tensor:
        return value.detach().clone().requires_grad_(value.is_floating_point())

    return Inputs(*pytree.tree_map_only(Tensor, tracked, (call.args, call.kwargs)))


def detaching(losses: Mapping[str, Any] | nn.ModuleDict) -> Iterator[str]:
    """Tell of losses of the generator that keep it from learning through the teachers."""
    for name, loss in losses.items():
        if any(getattr(part, "teacher_detach", False) for part in loss.modules()):
            what = (
                "'teacher_detach' is on, so the generator learns through the student alone; give teacher_detach: false"
            )
            yield f"generator_spec.distill_losses.{name}: {what}"
