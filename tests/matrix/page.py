"""The page of the documentation that shows the matrix."""

from collections.abc import Mapping
from pathlib import Path

from tests.matrix.cells import SURROUNDINGS, difference
from tests.matrix.processes import COLUMN, across
from tests.matrix.specs import ROWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "matrix.md"
HEAD = """# What was compared

Each cell is one kind of spec in one surrounding: two steps of the distiller beside the same in plain PyTorch (hooks,
replaced functions, the losses called by hand) in the same surrounding. It is the largest difference of the losses, the
output, all gradients and all buffers, each relative to the largest element of its tensor; `0` is equal to the last bit.

The models are two small convolutional networks with batch norms, activations in place, a module that is called twice, a
function and a method that specs name. Weights and images are float64, under autocast float32 with bfloat16.

- *graph*: nothing around it.
- *compiled*: `prepare(compile=...)` with `aot_eager` and `fullgraph=True`.
- *checkpointing*: the blocks of the student under `torch.utils.checkpoint` with `use_reentrant=False`.
- *EMA copy*: a deep copy of the student, and the student of a deep copy of the distiller, run between the step and its
  backward.
- *DDP, 2 processes*: `DistributedDataParallel` around the distiller, gloo, two processes with batches of their own; the
  gradients of the reference are averaged by hand.
- *accumulation*: the gradients of both steps are summed.
- *channels last*: models and images in that order of memory.

`python -m tests.matrix --write` writes this page anew; `tests/matrix` asserts that each difference is below 1e-10, with
autocast below 1e-2.

"""

Cells = Mapping[tuple[str, str], float | str]


def measured() -> Cells:
    """Fill the whole matrix."""
    cells: dict[tuple[str, str], float | str] = {}
    for surrounding in SURROUNDINGS:
        found = across(list(ROWS)) if surrounding == COLUMN else {row: difference(row, surrounding) for row in ROWS}
        cells |= {(row, surrounding): cell for row, cell in found.items()}
    return cells


def written(cells: Cells) -> str:
    """Give the text of the page."""
    rows = [["", *SURROUNDINGS], ["---"] * (len(SURROUNDINGS) + 1)]
    rows += [[row, *(shown(cells[row, surrounding]) for surrounding in SURROUNDINGS)] for row in ROWS]
    return HEAD + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def shown(cell: float | str) -> str:
    """Write one cell.

    >>> shown(0.0), shown(1.234e-12), shown("refused: why")
    ('0', '1.2e-12', 'refused: why')
    """
    return cell if isinstance(cell, str) else f"{cell:.1e}" if cell else "0"


def names(text: str) -> tuple[list[str], list[str]]:
    """Read from a page which specs and surroundings it shows."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row[0] for row in table[2:]], table[0][1:]
