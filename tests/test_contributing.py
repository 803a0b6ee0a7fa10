"""What is said of working on vdpad is so: CONTRIBUTING.md, CHANGELOG.md, pre-commit's hooks."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

import vdpad
from tests.test_docs import PAGES

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_make_makes_whatever_a_page_says(page: str) -> None:
    text = (ROOT / page).read_text()
    asked = re.findall(r"(?:^    |`)make((?: [a-z-]+)+)", text, re.M)
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    assert {each for words in asked for each in words.split()} <= targets


def test_contributing_names_tests_that_are_there() -> None:
    named = re.findall(r"\btests/[\w/.]+\.py\b", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 5
    assert [each for each in named if not (ROOT / each).exists()] == []


# --- the changelog, as keepachangelog.com has it ---

VERSIONS = re.findall(r"^## \[(.+?)\](?: - (.+))?$", CHANGELOG, re.M)


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    assert VERSIONS[0] == ("Unreleased", "")
    assert re.findall(r"^## .*", CHANGELOG, re.M) == [
        f"## [{name}] - {date}" if date else f"## [{name}]" for name, date in VERSIONS
    ]


def test_its_releases_have_dates_and_go_back_from_this_version() -> None:
    releases = VERSIONS[1:]
    assert releases[0][0] == vdpad.__version__
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in releases)
    assert all(later > earlier for (_, later), (_, earlier) in pairwise(releases))


def test_its_parts_are_those_that_there_are() -> None:
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.M)) <= known


# --- pre-commit ---


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_the_hooks_are_what_make_runs_from_the_same_venv(command: str) -> None:
    assert f"entry: .venv/bin/{command}" in HOOKS
    assert f"\t$(BIN)/{command}" in MAKEFILE
    assert os.access(ROOT / ".venv" / "bin" / command.split()[0], os.X_OK), "run `make`"


def test_a_subject_of_72_characters_is_short_enough_and_73_are_not() -> None:
    (pattern,) = re.findall(r"entry: '(.+)'", HOOKS)
    body = "\n\n" + 100 * "x"
    assert re.search(pattern, 73 * "x" + body)
    assert not re.search(pattern, 72 * "x" + body)
