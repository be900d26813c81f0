"""Write the tables of losses.md and connectors.md anew from the docstrings: ``python docs/reference.py``.

A table stands between ``<!-- table: losses response -->`` and ``<!-- end -->``: the family, then the kind of loss.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from fxkd import registry
from fxkd.registry import Registry

HERE = Path(__file__).parent
PAGES = ("losses.md", "connectors.md")
FAMILIES = {"losses": registry.losses, "connectors": registry.connectors}
REGION = re.compile(r"(<!-- table: (\w+) ?([\w-]*) -->\n).*?(<!-- end -->)", re.DOTALL)
PAPER = re.compile(r'"([^"]+?)",? (?:[A-Z]+ \d{4}, )?(?:arXiv (\d{4}\.\d{4,5})|(https://\S+?)[.,]? )')


def main(folder: Path = HERE, to: Path = HERE) -> None:
    """Read the pages in ``folder`` and write them, with their tables as they are now, ``to`` another."""
    for name in PAGES:
        text = (folder / name).read_text(encoding="utf-8")
        (to / name).write_text(REGION.sub(_region, text), encoding="utf-8")


def _region(found: re.Match[str]) -> str:
    classes = list(_classes(FAMILIES[found[2]], found[3]))
    rows = ["| name | what it does | takes | from |", "| --- | --- | --- | --- |", *map(_row, classes)]
    modules = [f".. automodule:: {module}\n   :members:" for module in dict.fromkeys(c.__module__ for c in classes)]
    return "\n".join([found[1], *rows, "", "```{eval-rst}", *modules, "```", "", found[4]])


def _classes(family: Registry, kind: str) -> Iterator[type[nn.Module]]:
    """Give fxkd's own classes in alphabetical order, each once."""
    own = {family.get(name): name for name in family.names() if family.get(name).__module__.startswith(family.package)}
    for cls in sorted(own, key=lambda cls: cls.__name__.lower()):
        if getattr(cls, "kind", "") == kind:
            yield cls


def _row(cls: type[nn.Module]) -> str:
    told = " ".join(str(inspect.getdoc(cls)).split())
    sentence = told.split(". ")[0].rstrip(".").replace("``", "`")
    taken = ", ".join(f"`{name}`" for name in list(inspect.signature(cls.forward).parameters)[1:])
    papers = [
        f"[{title}]({f'https://arxiv.org/abs/{arxiv}' if arxiv else address})"
        for title, arxiv, address in PAPER.findall(f"{told} ")
    ]
    return f"| `{cls.__name__}` | {sentence} | {taken} | {', '.join(papers)} |"


if __name__ == "__main__":
    main()
