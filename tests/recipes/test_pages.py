"""Each recipe has a page, which says what was not tried, and the index leads to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vdpad.state.model import NetState

from .moves import RECIPES

PAGES = sorted(RECIPES.glob("*/README.md"))
INDEX = (RECIPES / "README.md").read_text()


def links(page: Path) -> set[Path]:
    """The files that it leads to."""
    found = re.findall(r"\]\((?!https://)([^)#]+)", page.read_text())
    return {(page.parent / each).resolve() for each in found}


def test_there_are_recipes() -> None:
    assert len(PAGES) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_recipe_is_led_to_and_has_all_parts(page: Path) -> None:
    recipes = set(page.parent.iterdir()) - {page}
    assert recipes | {page} <= links(RECIPES / "README.md")
    assert recipes <= links(page)
    headings = re.findall(r"^## (.+)$", page.read_text(), re.M)
    assert headings[-3:] == ["What it does", "What happens", "Not tried"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_scripts_can_be_run(page: Path) -> None:
    for each in page.parent.iterdir():
        shebang = each.read_text().startswith("#!")
        assert bool(each.stat().st_mode & 0o111) == shebang, each


def test_the_annotation_is_one() -> None:
    text = (RECIPES / "kubevirt" / "README.md").read_text()
    (block,) = re.findall(r"```json\n(.+?)```", text, re.S)
    for move in json.loads(block).values():
        assert NetState.model_validate(move["state"])
