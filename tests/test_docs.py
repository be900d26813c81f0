"""The documentation says what there is: pictures as they would be drawn now, options as ``prepare`` takes them."""

import html
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import fxkd

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.glob("*.md")) if path.name != "silent-failures.md"]


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fxkd_pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(svg: Path) -> list[str]:
    """What a picture says, whichever program drew it."""
    return sorted(map(html.unescape, re.findall(r">([^<]*)</text>", svg.read_text(encoding="utf-8"))))


def test_pictures_are_those_that_would_be_drawn_now(pictures: ModuleType, tmp_path: Path) -> None:
    pictures.main(tmp_path)
    drawn = {path.name: words(path) for path in tmp_path.iterdir()}
    assert all(drawn.values())
    assert drawn == {path.name: words(path) for path in (DOCS / "images").iterdir()}


def test_pictures_are_small_and_shown() -> None:
    shown = {
        name for page in PAGES for name in re.findall(r"!\[[^\]]+\]\(images/(\S+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {path.name for path in (DOCS / "images").iterdir()}
    assert all(path.stat().st_size < 60_000 for path in (DOCS / "images").iterdir())


def test_options_are_those_of_prepare() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([^`]+)`.*\|$", text.split("### Options")[1].split("##")[0], re.MULTILINE)
    parameters = list(inspect.signature(fxkd.prepare).parameters.values())[3:]
    assert rows == [(parameter.name, repr(parameter.default).replace("'", '"')) for parameter in parameters]


def test_keys_are_those_of_a_spec() -> None:
    section = (DOCS / "api.md").read_text(encoding="utf-8").split("## The spec")[1].split("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == {*fxkd.Spec.__dataclass_fields__, "pairs"} - {"lines"}


@pytest.mark.parametrize(
    "name", [name for name, value in vars(fxkd).items() if re.match("[A-Za-z]", name) and callable(value)]
)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"^\.\. auto(class|function):: fxkd\.{name}(\(.*\))?$", text, re.MULTILINE), name


def test_every_loss_and_connector_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"automodule:: (fxkd\.(?:losses|connectors)\.\w+)", text))
    folders = {name: ROOT / "fxkd" / name for name in ("losses", "connectors")}
    there = {f"fxkd.{name}.{path.stem}" for name, folder in folders.items() for path in folder.glob("[a-z]*.py")}
    assert listed == there
