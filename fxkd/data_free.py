"""Distillation without data: a generator draws the images, and learns from the same teachers what to draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fxkd.algorithms import algorithm
from fxkd.data_free_checks import (
    asking_for_gradients,
    built,
    check_optimizers,
    check_options,
    check_steps,
    check_teachers,
    detaching,
    modules,
    noted,
    read,
    read_data_free,
)
from fxkd.errors import Problems
from fxkd.observe import example_calls
from fxkd.preparation import as_before_on_failure, prepare
from fxkd.spec import Spec
from fxkd.unmeant import Warner


@algorithm("DataFree")
class DataFree(nn.Module):
    """A student that learns from teachers on images that a generator makes of noise.

    Two distillers share the student. The student's step compares it with the teachers on images that are cut off from
    the generator. The generator's step runs the images through the student and the frozen teachers with gradients, by
    losses of its own: for images on which the two disagree, give the loss a negative ``loss_weight``, and one that
    detaches the teacher ``teacher_detach: false``. Its backward stops at the parameters that it trains
    (``loss.backward(inputs=...)``), so the student keeps the gradient that it had, and hooks on the generator's
    parameters run as in any backward. In train mode a student's batch norms take statistics in both steps.

    To spread it over processes wrap its parts: ``algorithm.distiller = DistributedDataParallel(algorithm.distiller)``
    and likewise ``algorithm.generator``; a single process needs no wrapper.

    Args:
        student: The model to train.
        teachers: The model to learn from, or several by name; they are frozen and in eval mode.
        generator: A module that is called with ``batch_size=`` and gives that many images; or the config of one:
            ``{"type": "DAFLGenerator", ...}``.
        spec: What the student learns: as for ``fxkd.prepare``.
        generator_spec: What the generator learns.
        student_iter: Steps of the student for each one of the generator, each on new noise.
        student_train_first: Whether those come before the generator's.
        joint: Whether both losses are computed on the same images before either is updated, the generator first.
        example_inputs: Images such as the generator makes, to capture and verify both distillers now.
        **options: Of ``fxkd.prepare``: ``backend``, ``compile``, ``verify``, ...

    Raises:
        SpecError: An option or a part of a spec cannot be; those of the second spec begin with ``generator_spec``.
        CaptureError: A model cannot be captured.

    From "DAFL: Data-Free Learning of Student Networks" (``joint``), arXiv 1904.01186; "Data-Free Adversarial
    Distillation" (``student_iter: 5, student_train_first: true``), arXiv 1912.11006; "Zero-shot Knowledge Transfer via
    Adversarial Belief Matching", arXiv 1905.09768.

    >>> import copy
    >>> student = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    >>> pair = {"student": "1", "teacher": "big.1", "loss": {"type": "L1Loss"}}
    >>> adversary = {**pair, "loss": {"type": "L1Loss", "loss_weight": -1.0}}
    >>> generator = {"type": "DAFLGenerator", "img_size": 4, "latent_dim": 3, "hidden_channels": 2}
    >>> data_free = DataFree(
    ...     student, {"big": copy.deepcopy(student)}, generator, {"pairs": [pair]}, {"pairs": [adversary]}
    ... )
    >>> optimizers = {
    ...     "student": torch.optim.SGD(data_free.student_parameters(), lr=0.1),
    ...     "generator": torch.optim.Adam(data_free.generator_parameters(), lr=0.001),
    ... }
    >>> sorted(data_free.train_step(8, optimizers))
    ['distill.loss', 'distill.loss_1', 'generator.loss', 'generator.loss_1']
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: nn.Module | Mapping[str, nn.Module],
        generator: nn.Module | Mapping[str, Any],
        spec: Spec | Mapping[str, Any] | str | Path,
        generator_spec: Spec | Mapping[str, Any] | str | Path,
        *,
        student_iter: int = 1,
        student_train_first: bool = False,
        joint: bool = False,
        example_inputs: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.student_iter, self.student_train_first, self.joint = student_iter, student_train_first, joint
        problems = Problems()
        check_steps(student_iter, student_train_first, joint, problems)
        check_options(options, problems)
        check_teachers(teachers, problems)
        self.generator: nn.Module = built(generator, problems)
        with noted("", problems):
            spec = read(spec, through_teacher=False)
        with noted("generator_spec", problems):
            generator_spec = read(generator_spec, through_teacher=True)
        problems.raise_if_any()
        calls = example_calls(example_inputs)
        with as_before_on_failure(*modules(student, teachers)):
            self.distiller: nn.Module = prepare(student, teachers, spec, example_inputs=calls or None, **options)
            with noted("generator_spec", problems):
                drawn = [asking_for_gradients(call) for call in calls]
                self.generator_distiller = prepare(
                    student, teachers, generator_spec, example_inputs=drawn or None, **options
                )
            problems.raise_if_any()
        self._distillers = (self.distiller, self.generator_distiller)  # as they are without a wrapper
        Warner()(detaching(self.generator_distiller.losses))

    @classmethod
    def from_spec(
        cls,
        student: nn.Module,
        teachers: nn.Module | Mapping[str, nn.Module],
        generator: nn.Module | Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> "DataFree":
        """Make one of a spec that holds all in its key ``data_free``.

        Args:
            student: The model to train.
            teachers: What it learns from.
            generator: A generator; by default the one that the spec describes.
            spec: A spec with the key ``data_free``: a mapping of ``generator``, ``generator_spec`` and, if need be,
                ``student_iter``, ``student_train_first`` and ``joint``.
            **options: The others of ``DataFree``.

        Raises:
            SpecError: There is no such key, or one in it that means nothing.
        """
        rest, own = read_data_free(spec, generator is not None)
        described = own.pop("generator", None)
        return cls(student, teachers, described if generator is None else generator, rest, **{**own, **options})

    prepare = from_spec  # what ``fxkd.build_algorithm`` calls

    @property
    def student(self) -> nn.Module:
        """The student: the object that was given."""
        return self.generator_distiller.student

    @property
    def teachers(self) -> dict[str, nn.Module]:
        """The teachers by name."""
        return self.generator_distiller.teachers

    def student_parameters(self) -> list[nn.Parameter]:
        """List what the student's steps train: the student, and connectors and losses of ``spec``."""
        return list(self.distiller.parameters())

    def generator_parameters(self) -> list[nn.Parameter]:
        """List what the generator's steps train: the generator, and connectors and losses of ``generator_spec``."""
        parts = (self.generator, self.generator_distiller.connectors, self.generator_distiller.losses)
        return [parameter for part in parts for parameter in part.parameters()]

    def train_step(self, batch_size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        """Train generator and student once, or as often as ``student_iter`` says.

        Args:
            batch_size: How many images are generated for each step.
            optimizers: One for the ``"student"`` and one for the ``"generator"``: of ``student_parameters()`` and
                ``generator_parameters()``.

        Returns:
            The losses of the student's last step as ``distill.<name>`` and those of the generator's as
            ``generator.<name>``, each weighted and detached; the sum that was trained is ``<...>.loss``.
        """
        check_optimizers(optimizers)
        if self.joint:
            return self._joint_step(batch_size, optimizers)
        steps = [self._generator_step, self._student_steps]
        losses: dict[str, Tensor] = {}
        for step in reversed(steps) if self.student_train_first else steps:
            losses |= step(batch_size, optimizers)
        return losses

    def step(self) -> None:
        """Tell that an epoch, or what you count in, is over: the schedules of both specs go on."""
        for distiller in self._distillers:
            distiller.step()

    def _student_steps(self, batch_size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        for _ in range(self.student_iter):
            with torch.no_grad():
                images = self.generator(batch_size=batch_size)
            learnt = self.distiller(images)
            self._update_student(learnt, optimizers)
        return _named("distill", learnt)

    def _generator_step(self, batch_size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        drawn = self.generator_distiller(self.generator(batch_size=batch_size))
        self._update_generator(drawn, optimizers)
        return _named("generator", drawn)

    def _joint_step(self, batch_size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
        images = self.generator(batch_size=batch_size)
        drawn = self.generator_distiller(images)
        learnt = self.distiller(images.detach())
        self._update_generator(drawn, optimizers)
        self._update_student(learnt, optimizers)
        return _named("distill", learnt) | _named("generator", drawn)

    def _update_student(self, learnt: Any, optimizers: Mapping[str, Optimizer]) -> None:
        optimizers["student"].zero_grad()
        learnt.loss.backward()
        optimizers["student"].step()

    def _update_generator(self, drawn: Any, optimizers: Mapping[str, Optimizer]) -> None:
        optimizers["generator"].zero_grad()
        drawn.loss.backward(inputs=[p for p in self.generator_parameters() if p.requires_grad])
        optimizers["generator"].step()


def _named(prefix: str, out: Any) -> dict[str, Tensor]:
    """Name what is logged."""
    own = {} if out.student_loss is None else {"student_loss": out.student_loss}
    return {f"{prefix}.{name}": value.detach() for name, value in {**out.losses, **own, "loss": out.loss}.items()}
