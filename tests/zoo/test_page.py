"""The page of the documentation shows all models of the zoo, and the time over blocks."""

import re

from tests.zoo.__main__ import PAGE
from tests.zoo.blocks import BLOCKS, NETWORKS
from tests.zoo.page import PICTURE
from tests.zoo.zoo import MODELS


def test_the_page_lists_all_models_and_no_others() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) == list(MODELS)
    headings = {f"## {family[0].upper()}{family[1:]}" for family in {model.family for model in MODELS.values()}}
    assert headings <= set(text.splitlines())


def test_the_page_shows_the_time_over_blocks() -> None:
    text, drawn = PAGE.read_text(encoding="utf-8"), (PAGE.parent / PICTURE).read_text(encoding="utf-8")
    assert f"]({PICTURE})" in text
    for name in NETWORKS:
        assert re.findall(rf"^\| {re.escape(name)} \| (\d+) \|", text, re.MULTILINE) == [str(n) for n in BLOCKS]
        assert f">{name}: " in drawn
