"""Distil a small digit classifier: run as ``python examples/digits.py [OUT]``; about a minute on a CPU.

A teacher learns from 897 labelled digits. A student of a fraction of its size has labels for 100 of them; it learns
twice from the same weights, batches and mixed images: alone, and from the teacher's logits and features as well.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sklearn
import torch
from digits_training import Digits, Run, Settings, load, run
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import fxkd

NETWORKS = ("teacher", "alone", "distilled")


def main(out: Path, *, seeds: int = 3, settings: Settings | None = None) -> None:
    """Train ``seeds`` times, print a table and write metrics, picture and student to ``out``."""
    console, settings, digits = Console(highlight=False, soft_wrap=True), settings or Settings(), load()
    out.mkdir(parents=True, exist_ok=True)
    runs = run_all(range(seeds), digits, settings, console)
    metrics = summary(runs, settings)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    console.print(table(metrics))
    console.print(verdict(metrics))
    distiller = runs[0].distiller.train()  # drawn as it trains
    for name in ("joint_graph.svg", "joint_graph.dot"):
        fxkd.draw(distiller, out / name)
    fxkd.deploy(distiller, (digits.test.images[:8],), path=out / "student.pt", compile=can_compile(console))
    console.print(
        f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}", highlight=False, soft_wrap=True
    )


def run_all(seeds: range, digits: Digits, settings: Settings, console: Console) -> list[Run]:
    """Make one run for each seed, under progress bars, with one line for each that is done."""
    torch.set_num_threads(1)  # sums in one order: the same numbers at every run
    runs = []
    for seed in seeds:
        start = time.perf_counter()
        with progress(settings.steps, console) as on_step:
            runs.append(run(seed, digits, settings, on_step))
        scores = ", ".join(f"{name} {runs[-1].accuracy[name]:.1%}" for name in NETWORKS)
        console.print(f"seed {seed}: {scores} ({time.perf_counter() - start:.0f} s)")
    return runs


@contextmanager
def progress(steps: int, console: Console) -> Iterator[Callable[[str], None]]:
    """Show one bar for each training; a log sees none."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {name: bars.add_task(name, total=steps, start=False) for name in NETWORKS}

        def on_step(name: str) -> None:
            bars.start_task(tasks[name])
            bars.advance(tasks[name])

        yield on_step


def summary(runs: list[Run], settings: Settings) -> dict[str, Any]:
    """Gather what is written to ``metrics.json``; accuracies lie between 0 and 1."""
    scores = {name: [run.accuracy[name] for run in runs] for name in NETWORKS}
    differences = [one - other for one, other in zip(scores["distilled"], scores["alone"], strict=True)]
    return {
        **{name: spread(values) for name, values in scores.items()},
        "distilled_minus_alone": spread(differences),
        "parameters": runs[0].parameters,
        "step_ms": {name: statistics.median(run.step_ms[name] for run in runs) for name in NETWORKS},
        "settings": asdict(settings),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sklearn": sklearn.__version__},
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Give mean, standard deviation (of the sample; 0 for one value) and the values, seed after seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation, "seeds": values}


def table(metrics: dict[str, Any]) -> Table:
    """Lay out the metrics."""
    count = len(metrics["teacher"]["seeds"])
    result = Table(title=f"Accuracy on the test images: mean ± standard deviation, {count} seeds")
    for column in ("network", "accuracy", "parameters", "training step (ms)"):
        result.add_column(column, justify="left" if column == "network" else "right")
    for name, shown in zip(NETWORKS, ("teacher", "student alone", "student distilled"), strict=True):
        score = f"{metrics[name]['mean']:.1%} ± {metrics[name]['std']:.1%}"
        result.add_row(shown, score, f"{metrics['parameters'][name]:,}", f"{metrics['step_ms'][name]:.1f}")
    return result


def verdict(metrics: dict[str, Any]) -> str:
    """Say in one line what came out."""
    difference = metrics["distilled_minus_alone"]
    better = sum(value > 0 for value in difference["seeds"])
    return (
        f"Same initial weights, images and labels: distillation changes the student's accuracy by "
        f"{100 * difference['mean']:+.1f} points; it is better with {better} of {len(difference['seeds'])} seeds."
    )


def can_compile(console: Console) -> bool:
    """Tell whether ``torch.compile`` finds a C++ compiler and Python's headers; note if not."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    found = shutil.which(compiler.split()[0]) is not None and headers.exists()
    if not found:
        console.print(
            f"note: no {compiler} or no Python.h here, so the deployed student is not compiled", soft_wrap=True
        )
    return found


def arguments(out: str, seeds: int) -> argparse.Namespace:
    """Read the command line; ``out`` and ``seeds`` are what holds without it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path(out), help=f"folder for the results ({out})")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"how many runs ({seeds})")
    parser.add_argument("--steps", type=int, default=Settings().steps, help=f"steps a training ({Settings().steps})")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments("runs/demo", seeds=3)
    main(given.out, seeds=given.seeds, settings=Settings(steps=given.steps))
