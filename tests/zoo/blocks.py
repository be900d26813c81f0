"""How long a capture takes by the number of blocks: ``python -m tests.zoo.blocks`` measures and keeps it.

What is measured is printed and kept in ``runs/blocks.json``, from where ``python -m tests.zoo --page`` takes it.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.support import torchvision_shim

torchvision_shim.install()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402 (after the shim)
from torch import nn  # noqa: E402

import fxkd  # noqa: E402
from tests.zoo.model import Call, images  # noqa: E402
from tests.zoo.points import modules, recorder  # noqa: E402
from tests.zoo.transformers_family import TEXT, text  # noqa: E402

KEPT = Path(__file__).parents[2] / "runs" / "blocks.json"
BLOCKS = (6, 12, 24, 36, 48)
REPEATS = 3


@dataclass(frozen=True)
class Line:
    """Seconds of the capture of one network at several depths, and the straight line through the shortest ones.

    Args:
        name: The network.
        seconds: Blocks -> CPU seconds of each repeat.
    """

    name: str
    seconds: dict[int, list[float]]

    @property
    def shortest(self) -> dict[int, float]:
        return {blocks: min(every) for blocks, every in self.seconds.items()}

    @property
    def median(self) -> dict[int, float]:
        return {blocks: statistics.median(every) for blocks, every in self.seconds.items()}

    @property
    def fit(self) -> tuple[float, float]:
        """Seconds for each block, and seconds without any."""
        slope, offset = statistics.linear_regression(list(self.shortest), list(self.shortest.values()))
        return slope, offset

    def on_line(self, blocks: int) -> float:
        """Give the seconds that the line has for a depth."""
        slope, offset = self.fit
        return slope * blocks + offset


def vit(blocks: int) -> nn.Module:
    import timm

    given = {"embed_dim": 48, "num_heads": 4, "img_size": 64, "num_classes": 10}
    return timm.create_model("vit_tiny_patch16_224", depth=blocks, **given)


def bert(blocks: int) -> nn.Module:
    import transformers

    return transformers.BertModel(transformers.BertConfig(**(TEXT | {"num_hidden_layers": blocks})))


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Call]]] = {
    "timm: vit_tiny_patch16_224": (vit, lambda: ((images(2, 64),), {})),
    "transformers: BertModel": (bert, partial(text, 2)),
}


def measured(name: str, depths: tuple[int, ...] = BLOCKS, repeats: int = REPEATS) -> Line:
    """Measure the capture of one network; its first capture, which imports what it needs, is not counted."""
    build, call = NETWORKS[name]
    seconds_of(build(depths[0]), call())
    return Line(name, {n: [seconds_of(build(n), call()) for _ in range(repeats)] for n in depths})


def seconds_of(model: nn.Module, call: Call) -> float:
    """Give the CPU seconds of ``fxkd.record`` with three modules as points."""
    points = {f"module_{place}": recorder("ModuleOutputs", path) for place, path in modules(model, call).items()}
    began = time.process_time()
    fxkd.record(model, points, fxkd.Inputs(*call))
    return time.process_time() - began


def table(lines: list[Line]) -> str:
    """Write what was measured beside the lines through it."""
    rows = [
        "| network | blocks | shortest | median | on the line | beside it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        for blocks, shortest in line.shortest.items():
            cells = (shortest, line.median[blocks], line.on_line(blocks))
            off = f"{(shortest - line.on_line(blocks)) / line.on_line(blocks):+.1%}"
            rows.append(f"| {line.name} | {blocks} | {' | '.join(f'{cell:.2f} s' for cell in cells)} | {off} |")
    return "\n".join(rows)


def save(lines: list[Line]) -> None:
    """Keep what was measured."""
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def load() -> list[Line]:
    """Read what was measured; nothing if nothing was."""
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    return [Line(one["name"], {int(n): every for n, every in one["seconds"].items()}) for one in kept]


def main() -> None:
    """Measure all networks."""
    torch.set_num_threads(1)
    lines = [measured(name) for name in NETWORKS]
    save(lines)
    print(table(lines))


if __name__ == "__main__":
    main()
