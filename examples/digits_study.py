"""Measure what distillation gains in the digits example: run as ``python examples/digits_study.py [OUT]``.

Ten seeds; for each the distilled student is compared with the one that learned alone from the same weights, images and
labels, so the differences are paired and their standard error is that of their mean.
"""

import json
from pathlib import Path
from typing import Any

from digits import arguments, run_all, summary
from digits_training import Settings, load
from rich.console import Console
from rich.table import Table


def main(out: Path, *, seeds: int = 10, settings: Settings | None = None) -> None:
    """Train ``seeds`` times, print a table and write ``study.json`` to ``out``."""
    console, settings = Console(highlight=False, soft_wrap=True), settings or Settings()
    study = summary(run_all(range(seeds), load(), settings, console), settings)
    difference = study["distilled_minus_alone"]
    difference["standard_error"] = difference["std"] / seeds**0.5
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.json").write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    console.print(table(study))
    console.print(verdict(difference))
    console.print(f"written to {out / 'study.json'}")


def table(study: dict[str, Any]) -> Table:
    """Lay out the accuracies, a row for each seed."""
    columns = ("teacher", "alone", "distilled", "distilled_minus_alone")
    result = Table("seed", title="Accuracy on the test images, in percent")
    for column in ("teacher", "alone", "distilled", "difference"):
        result.add_column(column, justify="right")
    for seed, row in enumerate(zip(*(study[column]["seeds"] for column in columns), strict=True)):
        *scores, difference = row
        result.add_row(str(seed), *(f"{100 * score:.1f}" for score in scores), f"{100 * difference:+.1f}")
    return result


def verdict(difference: dict[str, Any]) -> str:
    """Say in one line what came out."""
    return (
        f"distilled minus alone: {100 * difference['mean']:+.2f} points, "
        f"standard error {100 * difference['standard_error']:.2f} ({len(difference['seeds'])} pairs)"
    )


if __name__ == "__main__":
    given = arguments("runs/study", seeds=10)
    main(given.out, seeds=given.seeds, settings=Settings(steps=given.steps))
