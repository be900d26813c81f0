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
    return script("pictures")


def script(name: str) -> ModuleType:
    """Import a script of the documentation."""
    spec = importlib.util.spec_from_file_location(f"fxkd_{name}", DOCS / f"{name}.py")
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


@pytest.mark.parametrize("name", ["losses", "connectors"])
def test_every_loss_and_connector_is_in_the_reference(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    listed = re.findall(rf"automodule:: (fxkd\.{name}\.\w+)", text)
    assert sorted(listed) == sorted(f"fxkd.{name}.{path.stem}" for path in (ROOT / "fxkd" / name).glob("[a-z]*.py"))


def test_tables_are_those_that_would_be_written_now(tmp_path: Path) -> None:
    """``python docs/reference.py`` writes them anew."""
    script("reference").main(DOCS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["connectors.md", "losses.md"]
    for path in tmp_path.iterdir():
        assert path.read_text(encoding="utf-8") == (DOCS / path.name).read_text(encoding="utf-8")


def test_a_table_that_is_behind_is_written_anew(tmp_path: Path) -> None:
    behind = "before\n<!-- table: losses data-free -->\n| old |\n<!-- end -->\nafter\n"
    for name in ("losses.md", "connectors.md"):
        (tmp_path / name).write_text(behind, encoding="utf-8")
    script("reference").main(tmp_path, tmp_path)
    text = (tmp_path / "losses.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- table: losses data-free -->\n\n| name |")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == [
        "ActivationLoss",
        "InformationEntropyLoss",
        "OnehotLikeLoss",
    ]
    assert "| `feat_T` | [DAFL: Data-Free Learning of Student Networks](https://arxiv.org/abs/1904.01186) |" in text


def test_both_languages_run_the_same_code() -> None:
    pages = [(DOCS / f"from-mmrazor{end}.md").read_text(encoding="utf-8") for end in ("", "-zh")]
    blocks, translated = (re.findall(r"^```\w+\n.*?^```$", page, re.MULTILINE | re.DOTALL) for page in pages)
    assert len(blocks) > 30
    assert blocks == translated


@pytest.mark.parametrize("page", [path for path in DOCS.rglob("*.md") if "_build" not in path.parts], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (page.parent / target).exists(), target
