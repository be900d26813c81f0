"""Draw the seconds of a capture over the number of blocks, as an SVG."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.zoo.blocks import Line

COLOURS = ("#1F5FA8", "#C2700A", "#2E7D32", "#7B3FA0")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 56, 16, 16, 44
GREY = "#5F6670"


@dataclass(frozen=True)
class Axes:
    """Where blocks and seconds lie on the picture: from nothing to the largest of each."""

    blocks: float
    seconds: float

    def x(self, blocks: float) -> float:
        return round(LEFT + blocks / self.blocks * (WIDTH - LEFT - RIGHT), 1)

    def y(self, seconds: float) -> float:
        return round(HEIGHT - BOTTOM - seconds / self.seconds * (HEIGHT - TOP - BOTTOM), 1)


def picture(lines: Sequence[Line]) -> str:
    """Draw each network's shortest captures as points and the straight line through them."""
    depths = sorted({blocks for line in lines for blocks in line.shortest})
    top = max(second for line in lines for second in line.shortest.values())
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if top / step <= 6)
    axes = Axes(depths[-1], step * (int(top / step) + 1))
    ticks = [step * n for n in range(int(axes.seconds / step + 0.5) + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, sans-serif"'
        f' font-size="12" role="img" aria-label="CPU seconds of a capture over the number of blocks">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *frame(axes, depths, ticks),
    ]
    for index, line in enumerate(lines):
        parts += drawn(axes, line, index, COLOURS[index % len(COLOURS)])
    return "\n".join([*parts, "</svg>"]) + "\n"


def frame(axes: Axes, depths: Iterable[int], ticks: Iterable[float]) -> Iterator[str]:
    for tick in ticks:
        y = axes.y(tick)
        yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#E3E6EA"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{GREY}">{tick:g}</text>'
    below = HEIGHT - BOTTOM + 16
    for blocks in depths:
        yield f'<text x="{axes.x(blocks)}" y="{below}" text-anchor="middle" fill="{GREY}">{blocks}</text>'
    yield f'<text x="{(WIDTH + LEFT) / 2:g}" y="{HEIGHT - 8}" text-anchor="middle" fill="{GREY}">blocks</text>'
    yield f'<text transform="translate(16 {HEIGHT / 2:g}) rotate(-90)" text-anchor="middle" fill="{GREY}">CPU s</text>'


def drawn(axes: Axes, line: Line, index: int, colour: str) -> Iterator[str]:
    slope, offset = line.fit
    first = max(0.0, -offset / slope) if slope > 0 else 0.0
    ends = [(axes.x(blocks), axes.y(line.on_line(blocks))) for blocks in (first, axes.blocks)]
    yield f'<path d="M{ends[0][0]} {ends[0][1]}L{ends[1][0]} {ends[1][1]}" stroke="{colour}" fill="none"/>'
    for blocks, second in line.shortest.items():
        yield f'<circle cx="{axes.x(blocks)}" cy="{axes.y(second)}" r="4" fill="{colour}"/>'
    told = f"{line.name}: {slope * 1000:.0f} ms a block"
    yield f'<text x="{LEFT + 12}" y="{TOP + 16 + 18 * index}" fill="{colour}">{escape(told)}</text>'
