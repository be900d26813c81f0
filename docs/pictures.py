"""Draw the pictures of the documentation: ``python docs/pictures.py [FOLDER] [SUFFIX]``, or ``make pictures``.

The graphs are those that fxkd makes of two small networks; the classes are read from ``fxkd.eager``.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphviz
import torch
from torch import Tensor, nn

import fxkd
import fxkd.eager
from fxkd.draw.render import write
from fxkd.eager.deliveries import Delivery
from fxkd.eager.recorder import Recorder

HERE = Path(__file__).parent
IMAGES = torch.zeros(4, 3, 8, 8)
LOGITS = {"student": "head", "teacher": "head", "loss": {"type": "KLDivergence", "tau": 4}}
CONNECTOR = {"type": "ConvModuleConnector", "in_channel": 8, "out_channel": 32, "act_cfg": None}
FEATURES = {"student": "stem", "teacher": "stem", "loss": {"type": "L2Loss"}, "student_connector": CONNECTOR}


class Mix(nn.Module):
    """Mix each image with another one of the batch."""

    def forward(self, images: Tensor) -> Tensor:
        return (images + images[torch.randperm(images.shape[0])]) / 2


class Net(nn.Module):
    """A convolution, an activation that writes in place, and a classifier."""

    def __init__(self, width: int, *, mixes: bool = False) -> None:
        super().__init__()
        self.mix = Mix() if mixes else None
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        images = images if self.mix is None else self.mix(images)
        return self.head(self.act(self.stem(images)).mean((2, 3)))


def joint(*pairs: dict[str, Any], mixes: bool = False, **sections: Any) -> graphviz.Digraph:
    student, teacher = Net(8, mixes=mixes), Net(32, mixes=mixes)
    spec = {"pairs": list(pairs)} | sections
    return fxkd.draw(fxkd.prepare(student, teacher, spec, example_inputs=IMAGES, compile=False))


def student() -> graphviz.Digraph:
    return fxkd.draw(Net(8), example_inputs=IMAGES)


def both() -> graphviz.Digraph:
    return joint(LOGITS, FEATURES)


def pruned() -> graphviz.Digraph:
    return joint(FEATURES)


def delivery() -> graphviz.Digraph:
    return joint(LOGITS, mixes=True, distill_deliveries={"mixed": {"type": "ModuleOutputs", "source": "mix"}})


def classes() -> graphviz.Digraph:
    """Draw recorders, deliveries and their managers: who derives from whom, who holds whom."""
    graph = graphviz.Digraph(
        graph_attr={"rankdir": "LR", "fontname": "Helvetica", "ranksep": "0.5", "nodesep": "0.12", "bgcolor": "white"},
        node_attr={"shape": "box", "style": "rounded,filled", "fontname": "Helvetica", "fontsize": "12"},
        edge_attr={"fontname": "Helvetica", "fontsize": "11", "color": "#5F6670"},
    )
    for base, manager, line, fill in (
        (Recorder, fxkd.eager.RecorderManager, "#1F5FA8", "#D6E6F7"),
        (Delivery, fxkd.eager.DistillDeliveryManager, "#C2700A", "#FBE7CB"),
    ):
        graph.node(manager.__name__, _box(manager), color=line, fillcolor="white")
        graph.node(base.__name__, _box(base), color=line, fillcolor=fill)
        graph.edge(manager.__name__, base.__name__, label=" holds, by name ", dir="back", arrowtail="odiamond")
        for kind in vars(fxkd.eager).values():
            if inspect.isclass(kind) and issubclass(kind, base):
                graph.node(kind.__name__, kind.__name__, color=line, fillcolor=fill)
                graph.edge(base.__name__, kind.__name__, dir="back", arrowtail="empty")
    return graph


def _box(kind: type) -> str:
    """Write a class with what is its own and public."""
    own = [name for name, value in vars(kind).items() if not name.startswith("_")]
    calls = [f"{name}()" if callable(vars(kind)[name]) else name for name in own]
    rows = "".join(f'<tr><td align="left"><font point-size="10">{call}</font></td></tr>' for call in calls)
    return f'<<table border="0" cellspacing="0" cellpadding="1"><tr><td><b>{kind.__name__}</b></td></tr>{rows}</table>>'


PICTURES: dict[str, Callable[[], graphviz.Digraph]] = {
    "student": student,
    "joint": both,
    "pruned": pruned,
    "delivery": delivery,
    "classes": classes,
}


def main(folder: Path = HERE / "images", suffix: str = ".svg") -> None:
    """Draw all of them into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in PICTURES.items():
        torch.manual_seed(0)
        write(made(), (folder / name).with_suffix(suffix))


if __name__ == "__main__":
    main(*(Path(sys.argv[1]), *sys.argv[2:3]) if sys.argv[1:] else ())
