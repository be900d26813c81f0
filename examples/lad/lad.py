"""Label assignment distillation on a toy detector: run as ``python examples/lad/lad.py``; half a minute on a CPU.

A detector chooses by its own scores which of its anchors learn a thing. Here the student learns by the choice of a
teacher that is trained already ("Improving Object Detection by Label Assignment Distillation", arXiv 2108.10520). The
assigner asks for values at every turn, so it is one node of the graph that runs at every step.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lad_detector import Detector
from lad_images import CLASSES, SIZE, Images, make
from lad_measure import average_precision
from torch import nn

import fxkd

TEST_SEED, ASSIGN = 10_000, "lad_detector.Assigner.assign"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Sizes and lengths of the runs."""

    teacher_width: int = 24
    student_width: int = 8
    teacher_steps: int = 220
    steps: int = 130
    batch: int = 8
    train_images: int = 512
    test_images: int = 150
    rate: float = 3e-3


@dataclass(frozen=True, slots=True)
class Run:
    """Average precisions of one seed: of the student alone, and of the same student taught."""

    alone: float
    taught: float


def main(seeds: int = 3, settings: Settings | None = None) -> list[Run]:
    """Train a teacher, then each student twice from the same weights and batches, and print what came of it."""
    torch.set_num_threads(1)
    settings, start = settings or Settings(), time.perf_counter()
    images, test = make(settings.train_images, 0), make(settings.test_images, TEST_SEED)
    teacher = _detector(settings.teacher_width, 0)
    _train(teacher.parameters(), lambda batch: _loss(teacher(*batch)), images, settings.teacher_steps, settings, 0)
    print(f"teacher: {_parameters(teacher)} parameters, average precision {_percent(teacher, test)}")
    runs = [_run(seed, teacher, images, test, settings) for seed in range(1, seeds + 1)]
    print(f"student: {_parameters(_detector(settings.student_width, 0))} parameters")
    for seed, run in enumerate(runs, 1):
        print(f"seed {seed}: alone {run.alone:.1%}, by the teacher's assignment {run.taught:.1%}")
    print(_verdict([run.taught - run.alone for run in runs]))
    print(f"{time.perf_counter() - start:.0f} seconds")
    return runs


def _run(seed: int, teacher: nn.Module, images: Images, test: Images, settings: Settings) -> Run:
    alone = _detector(settings.student_width, seed)
    taught = copy.deepcopy(alone)
    spec = fxkd.recipes.lad(taught, teacher, methods=[ASSIGN])
    first = Images(*(part[:4] for part in images))
    distiller = fxkd.prepare(taught, copy.deepcopy(teacher), spec, example_inputs=tuple(first))
    _train(alone.parameters(), lambda batch: _loss(alone(*batch)), images, settings.steps, settings, seed)
    _train(distiller.parameters(), lambda batch: distiller(*batch).loss, images, settings.steps, settings, seed)
    return Run(*(average_precision(model, test, CLASSES) for model in (alone, taught)))


def _detector(width: int, seed: int) -> Detector:
    torch.manual_seed(seed)
    return Detector(width, CLASSES, SIZE)


def _loss(out: dict[str, torch.Tensor]) -> torch.Tensor:
    return out["loss_class"] + out["loss_box"]


def _train(
    parameters: object,
    loss_of: Callable[[Images], torch.Tensor],
    images: Images,
    steps: int,
    settings: Settings,
    seed: int,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=settings.rate)  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * settings.rate, total_steps=steps + 1)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(0, len(images.pixels), (settings.batch,), generator=draw)
        loss = loss_of(Images(*(part[rows] for part in images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _parameters(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()):,}"


def _percent(model: nn.Module, test: Images) -> str:
    return f"{average_precision(model, test, CLASSES):.1%}"


def _verdict(differences: list[float]) -> str:
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
    word = f"a {'gain' if mean > 0 else 'loss'}" if abs(mean) > 2 * error else "neither a clear gain nor a loss"
    return f"taught minus alone: {100 * mean:+.1f} points, standard error {100 * error:.1f}: {word}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    arguments = parser.parse_args()
    main(arguments.seeds, Settings(steps=arguments.steps))
