"""The legend: what the colours and shapes of a picture mean, only of what occurs in it."""

from collections.abc import Iterator

import networkx as nx

from fxkd.draw.style import DELIVERY, GREY, PALE, colours

COLUMNS = 3


def legend(network: "nx.DiGraph[str]") -> str:
    """Write the legend as one small table; it stands where the label of a graph does, so it is in nobody's way."""
    entries = list(_entries(network))
    if not entries:
        return ""
    rows = [entries[start : start + COLUMNS] for start in range(0, len(entries), COLUMNS)]
    table = "".join(f"<tr>{''.join(map(_cells, row))}</tr>" for row in rows)
    frame = 'border="1" color="#C9CDD3" style="rounded" cellborder="0" cellspacing="4" cellpadding="1"'
    return f"<<table {frame}>{table}</table>>"


def _entries(network: "nx.DiGraph[str]") -> Iterator[tuple[str, str, str, str]]:
    """Yield sign, line colour, fill and meaning of what occurs."""
    nodes = [data for _, data in network.nodes(data=True)]
    sides = dict.fromkeys(data["side"] for data in nodes)
    kinds = {data["kind"] for data in nodes}
    for side in [side for side in sides if side not in ("input", "output", "connector", "loss", "model")]:
        yield ("&nbsp;", *colours(side), side)
    if "connector" in sides:
        yield ("<b>C</b>", *colours("connector"), "connector: makes a value fit its partner")
    if any(data["side"] == "loss" and data["kind"] != "total" for data in nodes):
        yield ("&nbsp;", *colours("loss"), "loss")
    if "total" in kinds:
        yield ("&nbsp;", colours("loss")[0], colours("loss")[0], "sum of losses")
    if "record" in kinds:
        yield (f'<font color="{colours("loss")[0]}">●</font>', GREY, "#FFFFFF", "recorded value")
    if "deliver" in kinds:
        yield ("→", DELIVERY, "#FBE7CB", "delivered: the student takes the teacher's value")
    if any(data["pruned"] for data in nodes):
        yield ("&nbsp;", *PALE, "pruned: no loss or output needs it")


def _cells(entry: tuple[str, str, str, str]) -> str:
    sign, line, fill, meaning = entry
    box = f'<td border="1" color="{line}" bgcolor="{fill}" width="26">{sign}</td>'
    return f'{box}<td align="left">{meaning}&nbsp;&nbsp;</td>'
