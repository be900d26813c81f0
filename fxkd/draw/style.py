"""What things look like: colours, shapes and the words in a node."""

from html import escape
from typing import Any

FONT = "Helvetica"
GREY = "#5F6670"
DELIVERY = "#C2700A"
COLOURS = {  # side -> line, fill
    "teacher": ("#7B4F2C", "#EEDFCC"),
    "student": ("#1F5FA8", "#D6E6F7"),
    "connector": ("#5B3E99", "#E6DDF6"),
    "loss": ("#A8323A", "#F9DEDD"),
    "input": (GREY, "#ECEEF1"),
    "output": (GREY, "#ECEEF1"),
}
PALE = ("#B9B4AE", "#FAF9F7")
SHAPES = {"input": "invhouse", "output": "house", "attribute": "note", "total": "ellipse"}
MOST_LETTERS = 34


def node_style(data: dict[str, Any]) -> dict[str, str]:
    """Give the Graphviz attributes of a node."""
    line, fill = PALE if data["pruned"] else colours(data["side"])
    style = {"label": node_label(data, line), "color": line, "fillcolor": fill, "tooltip": _tooltip(data)}
    style |= {"shape": _shape(data), "style": "filled,dashed" if data["pruned"] else "filled"}
    if data["side"] == "connector":
        style["margin"] = "0,0"
    if data["kind"] == "record":
        style |= {"fillcolor": "#FFFFFF", "fontsize": "11"}
    if style["shape"] == "box":
        style["style"] += ",rounded"
    if data["pruned"]:
        return style | {"fontcolor": "#8C8680"}
    if data["kind"] == "deliver":
        return style | {"color": DELIVERY, "fillcolor": "#FBE7CB", "penwidth": "1.8"}
    if data["kind"] == "total":
        return style | {"fillcolor": line, "fontcolor": "#FFFFFF", "penwidth": "1.8"}
    return style


def edge_style(source: dict[str, Any], target: dict[str, Any]) -> dict[str, str]:
    """Give the Graphviz attributes of an edge between two nodes."""
    if source["pruned"] or target["pruned"]:
        return {"color": PALE[0], "style": "dashed"}
    if target["kind"] == "deliver":
        label = f"<<b>{escape(target['label'])}</b>>"
        return {"color": DELIVERY, "penwidth": "3", "label": label, "fontcolor": DELIVERY}
    style = {"color": colours(target["side"] if source["kind"] == "input" else source["side"])[0]}
    if target["kind"] == "record":
        return style | {"weight": "4"}
    if source["kind"] == "record":
        return style | {"weight": "2", "penwidth": "1.5"}
    if source["side"] == "connector":
        return style | {"weight": "2"}
    return style | {"weight": "8"} if source["side"] == target["side"] != "loss" else style


def colours(side: str) -> tuple[str, str]:
    """Give line and fill of a side; a side with a name of its own is a teacher, a lone model looks like a student."""
    return COLOURS["student" if side == "model" else side if side in COLOURS else "teacher"]


def node_label(data: dict[str, Any], colour: str) -> str:
    """Write what stands in a node: its name, below it in small letters its class and the shape of what it gives."""
    name = f"<b>{escape(shortened(data['label']))}</b>"
    if data["side"] == "connector" and data["class"]:
        name = f'<font point-size="17"><b>C</b></font>  {name}'
    if data["kind"] == "record":
        return f'<<font color="{PALE[0] if data["pruned"] else COLOURS["loss"][0]}">●</font> record {name}>'
    if data["kind"] == "deliver":
        return f"<deliver {name}>"
    if data["kind"] in ("function", "method"):
        name = escape(data["label"])
    below = " · ".join(filter(None, (data["class"], short_shape(data["shape"]))))
    return f'<{name}<br/><font point-size="9">{escape(below)}</font>>' if below else f"<{name}>"


def shortened(words: str) -> str:
    """Cut what is too long in the middle.

    >>> shortened("encoder.layer.11.attention.self.query.projection")
    'encoder.layer.11…f.query.projection'
    """
    half = MOST_LETTERS // 2
    return words if len(words) <= MOST_LETTERS + 1 else f"{words[: half - 1]}…{words[-half - 1 :]}"


def short_shape(shape: str) -> str:
    """Write shapes as on paper.

    >>> short_shape("(2, 64, 8, 8), ()")
    '2×64×8×8, scalar'
    """
    shapes = shape.replace(",)", ")").split("), (") if shape else []
    return ", ".join("×".join(one.strip("()").split(", ")) or "scalar" for one in shapes)


def _shape(data: dict[str, Any]) -> str:
    if data["side"] == "connector":
        return "hexagon"
    if data["side"] == "loss" and data["kind"] == "module":
        return "octagon"
    return SHAPES.get(data["kind"], "box")


def _tooltip(data: dict[str, Any]) -> str:
    points = [f"point: {point}" for point in data["points"]]
    return "\\n".join([f"{data['op']} {data['target']}", *filter(None, [data["dtype"]]), *points])
