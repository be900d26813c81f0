"""The work of a capture grows with the number of blocks and no faster; how its seconds are shown."""

import cProfile
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import fxkd
from tests.zoo import blocks
from tests.zoo.blocks import BLOCKS, NETWORKS, Line
from tests.zoo.page import page
from tests.zoo.plot import picture

DEPTHS = (2, 4, 8)
WIDTH = 8
ALLOWED = 0.005  # of the calls for further blocks: at 48 blocks, less than a twentieth of all work could grow faster


class Block(nn.Module):
    """Attention and a perceptron, each beside what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.three = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + nn.functional.scaled_dot_product_attention(*self.three(self.norm(x)).chunk(3, dim=-1))
        return x + self.perceptron(x.reshape(x.shape[0], -1, WIDTH))


class SeesAll(nn.Module):
    """Each block reads what all the others before it gave: its work grows with the square of the depth."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        given = [x]
        for block in self.blocks:
            given.append(block(sum(one.abs() for one in given)))
        return given[-1]


def calls(build: Callable[[int], nn.Module], depth: int) -> int:
    """Count the calls of functions, those in C too, of the capture of a network."""
    model, example = build(depth), fxkd.Inputs((torch.ones(2, 5, WIDTH),))
    first = next(path for path, module in model.named_modules() if isinstance(module, nn.Linear))
    profile = cProfile.Profile()
    profile.runcall(fxkd.record, model, {"first": {"type": "ModuleOutputs", "source": first}}, example)
    return sum(entry.callcount for entry in profile.getstats())


def excess(build: Callable[[int], nn.Module]) -> float:
    """Tell how much more the last four blocks cost than twice the two before them, as a part of it."""
    calls(build, DEPTHS[0])  # imports and caches
    few, some, many = (calls(build, depth) for depth in DEPTHS)
    return (many - some) / (2 * (some - few)) - 1


def test_each_further_block_costs_as_much_as_the_one_before() -> None:
    assert abs(excess(lambda depth: nn.Sequential(*(Block() for _ in range(depth))))) < ALLOWED


def test_work_that_grows_faster_is_seen() -> None:
    assert excess(SeesAll) > 10 * ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_forty_eight_blocks_take_less_than_ten_seconds(name: str) -> None:
    assert min(blocks.measured(name, (48,), 2).seconds[48]) < 10


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_as_many_blocks_as_it_is_asked_for(name: str) -> None:
    build, _ = NETWORKS[name]
    two, three, five = (len(list(build(depth).parameters())) for depth in (2, 3, 5))
    assert five - three == 2 * (three - two) > 0


def made(slope: float = 0.2, offset: float = 0.5, name: str = "a <network>") -> Line:
    return Line(name, {n: [slope * n + offset + late for late in (0.3, 0.0, 0.1)] for n in BLOCKS})


def test_the_line_goes_through_the_shortest() -> None:
    line = made()
    assert line.fit == pytest.approx((0.2, 0.5))
    assert line.median == pytest.approx({n: 0.2 * n + 0.6 for n in BLOCKS})
    assert "| a <network> | 48 | 10.10 s | 10.20 s | 10.10 s | +0.0% |" in blocks.table([line]).replace(
        "-0.0%", "+0.0%"
    )


def test_what_was_measured_is_kept(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "KEPT", tmp_path / "runs" / "blocks.json")  # type: ignore[operator]
    blocks.save([made(), made(0.1)])
    assert blocks.load() == [made(), made(0.1)]


def test_the_picture_has_every_depth_and_its_line() -> None:
    drawn = ElementTree.fromstring(picture([made(), made(0.1, name="other")]))
    circles = [one for one in drawn.iter() if one.tag.endswith("circle")]
    assert len(circles) == 2 * len(BLOCKS)
    heights = [float(one.attrib["cy"]) for one in circles[: len(BLOCKS)]]
    steps = [(heights[i] - heights[i + 1]) / (BLOCKS[i + 1] - BLOCKS[i]) for i in range(len(BLOCKS) - 1)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=0.02)
    assert steps[0] > 0, "more seconds are further up"
    assert {"a <network>: 200 ms a block", "other: 100 ms a block"} <= {one.text for one in drawn.iter()}


def test_the_page_shows_them() -> None:
    text = page([], [made()])
    assert "measured/zoo-blocks.svg" in text
    assert re.findall(r"^\| a <network> \| (\d+) \|", text, re.MULTILINE) == [str(n) for n in BLOCKS]
