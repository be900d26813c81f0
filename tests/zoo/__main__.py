"""Compare models of the zoo: ``python -m tests.zoo [WORD ...] [--page]``; a word is part of a name or a family.

What comes out is printed and kept in ``runs/zoo.jsonl``; ``--page`` writes ``docs/zoo.md`` from all that is kept there
and from what ``python -m tests.zoo.blocks`` measured.
"""

import argparse
import os
from pathlib import Path

from tests.support import torchvision_shim

torchvision_shim.install()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.zoo import blocks  # noqa: E402 (after the shim)
from tests.zoo.compare import CRASHED, EXAMPLE, Outcome, outcomes  # noqa: E402
from tests.zoo.model import Model  # noqa: E402
from tests.zoo.page import PICTURE, page, summary  # noqa: E402
from tests.zoo.plot import picture  # noqa: E402
from tests.zoo.results import Found, load, rows, save  # noqa: E402
from tests.zoo.zoo import MODELS, asked_for  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
KEPT, PAGE = ROOT / "runs" / "zoo.jsonl", ROOT / "docs" / "zoo.md"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names or families; all models without any")
    parser.add_argument("--page", action="store_true", help="write docs/zoo.md from all that was found so far")
    parser.add_argument("--no-run", action="store_true", help="only print or write what was found before")
    given = parser.parse_args()
    for model in [] if given.no_run else asked_for(given.words):
        found = compared(model)
        save(KEPT, found)
        print(*map(line, found), sep="\n", flush=True)
    known = [row for row in rows(load(KEPT)) if row.name in MODELS]
    print(summary(known))
    if given.page:
        missing = sorted(MODELS.keys() - {row.name for row in known})
        if missing:
            raise SystemExit(f"the page needs all models; not run yet: {', '.join(missing)}")
        lines = blocks.load()
        if not lines:
            raise SystemExit("the page needs the time over blocks: run python -m tests.zoo.blocks first")
        ordered = sorted(known, key=lambda row: list(MODELS).index(row.name))
        PAGE.write_text(page(ordered, lines), encoding="utf-8")
        (PAGE.parent / PICTURE).write_text(picture(lines), encoding="utf-8")


def compared(model: Model) -> list[Outcome]:
    """Compare one model; a builder that fails is a crash of its own."""
    try:
        return list(outcomes(model))
    except Exception as error:  # noqa: BLE001 (it goes into the table)
        message = f"not compared: {type(error).__name__}: {error}"
        return [Outcome(model=model, mode=model.modes[0], call=EXAMPLE, verdict=CRASHED, message=message)]


def line(outcome: Outcome) -> str:
    """Say what came of a call on one line."""
    found = Found.of(outcome)
    mark = " " if found.is_expected else "!"
    took = f" {found.seconds:.2f} s" if found.seconds is not None else ""
    return f"{mark} {found.name} {found.mode} {found.call}: {found.verdict}{took} {found.message}".rstrip()


if __name__ == "__main__":
    main()
