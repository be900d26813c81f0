"""Write what came of the zoo as a page of the documentation."""

import platform
import statistics
from collections.abc import Iterable

import torch

from tests.zoo.blocks import REPEATS, Line, table
from tests.zoo.compare import CRASHED, WRONG
from tests.zoo.model import MODES, REFUSED, RIGHT
from tests.zoo.results import Found, Row

LIBRARIES = ("timm", "transformers", "torchvision")
HEAD = """# The zoo

Models that people have, and what fxkd makes of them. `python -m tests.zoo --page` builds each model here with random
weights, small where its options let it, and chooses points by a rule: the modules at 10, 30 and 80 % of the order of
calls, one function and one method that give real numbers. It captures the model with `fxkd.record` on a batch of two
and compares it with a copy under plain torch hooks and patches: outputs, records, the gradients of all parameters and
all buffers, within 1e-6 of each tensor's largest value (gradients also within 2^-25, half a rounding, of the largest
gradient of all). Both run on the example and on further inputs (another batch size, other images, lengths and masks,
sizes that decide what is run), in train and in eval mode. Models that keep in eval mode what they make at their first
call are called once before. Every run of fxkd's tests compares a third of each family, the models that are soonest done
(`tests/zoo/third.py`), in a shorter form: one mode and one further input, which change from model to model.

- **right**: all is equal, on every input.
- **refused**: an error says what a graph cannot do, where, and what to do; *as expected* where that is true of the
  model.
- **wrong**: something differs and nobody said so. There must be none.
- **crashed**: an error that is none of fxkd's.
"""


PICTURE = "measured/zoo-blocks.svg"
BLOCKS = f"""## Time over blocks

Transformers of more and more blocks, captured with three modules as points; the shortest of {REPEATS} captures, and the
straight line through them. `python -m tests.zoo.blocks` measures this anew. The tests count calls instead of seconds:
each further block costs as many as the one before.

![CPU seconds of a capture over the number of blocks: a straight line for each network]({PICTURE})
"""


def page(rows: list[Row], lines: list[Line]) -> str:
    """Write the page, of what came of the models and of the time over blocks."""
    parts = [HEAD, _versions(), "## In all", summary(rows), "## What was not right", _failures(rows)]
    parts += [BLOCKS, table(lines)]
    for family in dict.fromkeys(row.family for row in rows):
        parts += [f"## {family[0].upper()}{family[1:]}", _family([row for row in rows if row.family == family])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def summary(rows: list[Row]) -> str:
    """Count what came out, family by family."""
    lines = [
        "| | models | right | refused as expected | refused otherwise | wrong | crashed | capture, median (longest) |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    families = {row.family: [one for one in rows if one.family == row.family] for row in rows}
    libraries = {name: [row for row in rows if row.family.startswith(name)] for name in LIBRARIES}
    for name, held in families.items():
        lines.append(_count(name, held))
    for name, held in libraries.items():
        lines += [_count(f"**{name}**", held)] if held else []
    return "\n".join([*lines, _count("**all**", rows)])


def _count(name: str, rows: list[Row]) -> str:
    refused = [row for row in rows if row.verdict == REFUSED]
    expected = sum(row.is_expected for row in refused)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in (RIGHT, WRONG, CRASHED)}
    cells = (len(rows), counts[RIGHT], expected, len(refused) - expected, counts[WRONG], counts[CRASHED])
    return f"| {name} | {' | '.join(map(str, cells))} | {_seconds(rows)} |"


def _seconds(rows: Iterable[Row]) -> str:
    seconds = [second for row in rows for second in row.seconds]
    return f"{statistics.median(seconds):.2f} s ({max(seconds):.1f} s)" if seconds else "-"


def _versions() -> str:
    from importlib.metadata import version

    named = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"This page was written with torch {torch.__version__.partition('+')[0]}, {named} and Python "
        f"{platform.python_version()}, on one thread. Seconds are those of the CPU in `fxkd.record` with "
        "example inputs."
    )


def _family(rows: list[Row]) -> str:
    lines = ["| model | train | eval | inputs | capture |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        calls = ", ".join(dict.fromkeys(one.call for one in row.found if one.call != "example again"))
        modes = " | ".join(row.in_mode(mode) for mode in MODES)
        lines.append(f"| `{row.name}` | {modes} | {calls} | {_seconds([row])} |")
    return "\n".join(lines)


def _failures(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for message, found in _by_message(row).items():
            where = ", ".join(dict.fromkeys(f"{one.mode}, {one.call}" for one in found))
            verdict = f"{found[0].verdict}{' as expected' if found[0].is_expected else ''}"
            lines.append(f"- `{row.name}` ({where}): **{verdict}**: {message}")
    return "\n".join(lines) or "Nothing."


def _by_message(row: Row) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for one in row.found:
        if one.verdict != RIGHT:
            found.setdefault(plain(one.message), []).append(one)
    return found


def plain(message: str, longest: int = 400) -> str:
    """Write a message so that it is the same on every machine and no markup: files without their folders."""
    words = " ".join(word.rpartition("/")[2] if word.count("/") > 1 else word for word in message.split())
    short = words if len(words) <= longest else words[: longest - 3] + "..."
    return f"`{short.replace('`', chr(39))}`"
