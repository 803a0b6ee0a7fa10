"""The man pages are whole: all is in them that there is, and `man` shows them as they are meant."""

import argparse
import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from docutils.core import publish_string
from pydantic import BaseModel

from tests.availability import skip_or_fail
from tests.support.waiting import GUARD
from vdpad.cli import commands, exit_codes, vdpad, vhost_user_options
from vdpad.daemon.settings import Method, Settings

MAN = Path(__file__).parents[1] / "docs" / "man"
PAGES = {path.name: path.read_text() for path in sorted(MAN.glob("*.rst"))}


# What man-pages(7) asks of every page.
_ALWAYS = ("Name", "SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO")
_WIDTH = 80

each_page = pytest.mark.parametrize("page", PAGES)


def made(page: str, halt_level: int = 3) -> str:
    """A page for `man`."""
    options = {"halt_level": halt_level, "output_encoding": "unicode"}
    return str(publish_string(PAGES[page], writer="manpage", settings_overrides=options))


@functools.cache
def shown(page: str) -> list[str]:
    """What `man` shows of it: lines of 80 columns, without the first and the last one."""
    skip_or_fail(None if shutil.which("man") else "man is not installed (man-db)")
    with tempfile.NamedTemporaryFile("w", suffix=page.removesuffix(".rst")) as file:
        file.write(made(page))
        file.flush()
        done = subprocess.run(
            ["man", "--warnings=w", "--local-file", file.name],
            env={**os.environ, "MANWIDTH": str(_WIDTH), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=True,
        )
    assert done.stderr == ""
    return done.stdout.strip("\n").splitlines()[1:-1]


@each_page
def test_a_page_can_be_made_and_docutils_wonders_about_nothing(page: str) -> None:
    name, section, _ = page.rsplit(".", 2)
    as_make_does = made(page, halt_level=1)
    assert f'.TH "{name}" "{section}"' in as_make_does
    assert ".SH SYNOPSIS" in as_make_does


@each_page
def test_every_heading_is_a_line_of_its_own(page: str) -> None:
    """Whatever stands above a row of equals signs, however short that is, is meant as one."""
    title, *meant = re.findall(r"^ ?(\S.*)\n=+$", PAGES[page], re.M)
    headings = [line for line in shown(page) if line[:1].strip()]
    assert headings == ["Name", *meant]
    assert set(_ALWAYS) <= set(headings)
    assert title == page.rsplit(".", 2)[0]


@each_page
def test_every_heading_has_something_below_it(page: str) -> None:
    filled = [line for line in shown(page) if line]
    below = [after for line, after in itertools.pairwise(filled) if line[0] != " "]
    assert len(below) >= len(_ALWAYS)
    assert all(line.startswith("       ") for line in below), below
    assert filled[-1].startswith(" ")


@each_page
def test_no_markup_is_left_over(page: str) -> None:
    text = "\n".join(shown(page))
    assert re.findall(r"\*\*|``|::|==+|\|\w+\||`_", text) == []


@each_page
def test_lines_fit_and_no_name_is_broken(page: str) -> None:
    assert [line for line in shown(page) if len(line) > _WIDTH] == []
    assert [line for line in shown(page) if line.endswith(("\u2010", "\u00ad"))] == []


@each_page
def test_whatis_finds_what_a_page_is_about(page: str, tmp_path: Path) -> None:
    skip_or_fail(None if shutil.which("lexgrog") else "lexgrog is not installed (man-db)")
    path = tmp_path / page.removesuffix(".rst")
    path.write_text(made(page))
    done = subprocess.run(
        ["lexgrog", path], capture_output=True, text=True, check=True, timeout=GUARD
    )
    assert re.search(rf'"{path.stem} - .{{10,}}"', done.stdout), done.stdout


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All long options, those of its methods included."""
    for action in parser._actions:
        yield from (each for each in action.option_strings if each.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for method in action.choices.values():
                yield from options(method)


def methods(parser: argparse.ArgumentParser) -> list[str]:
    """The names of its methods."""
    return [
        name
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    ]


@pytest.mark.parametrize("option", sorted(set(options(commands.command_line())) - {"--help"}))
def test_vdpactl_s_options_are_told(option: str) -> None:
    assert option in PAGES["vdpactl.1.rst"]


@pytest.mark.parametrize("method", methods(commands.command_line()))
def test_vdpactl_s_methods_are_told(method: str) -> None:
    assert f"\n{method}" in PAGES["vdpactl.1.rst"]


def test_vdpactl_s_exit_codes_are_told() -> None:
    told = dict(re.findall(r"^(\d+)\n    (.+)\.$", section("vdpactl.1.rst", "EXIT STATUS"), re.M))
    meant = {str(code): text for code, text in exit_codes.MEANINGS.items()}
    assert {code: text[0].lower() + text[1:] for code, text in told.items()} == meant
    assert set(exit_codes.MEANINGS) == set(range(len(exit_codes.MEANINGS)))


def section(page: str, title: str) -> str:
    """What stands below a heading, without markup."""
    _, _, below = PAGES[page].partition(f"\n{title}\n===")
    text, _, _ = below.partition("\n===")
    return text.replace("*", "")


@pytest.mark.parametrize("option", sorted(set(options(vdpad.command_line())) - {"--help"}))
def test_vdpad_s_options_are_told(option: str) -> None:
    assert option in PAGES["vdpad.8.rst"]


@pytest.mark.parametrize(
    "option", sorted(set(options(vhost_user_options.command_line())) - {"--help"})
)
def test_a_back_end_s_options_are_told(option: str) -> None:
    assert option in PAGES["vdpad-vhost-user.8.rst"]


def keys(model: type[BaseModel]) -> Iterator[str]:
    """All keys of a model and those below."""
    for name, field in model.model_fields.items():
        yield name
        for below in _models(field.annotation):
            yield from keys(below)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for each in get_args(annotation):
        yield from _models(each)


@pytest.mark.parametrize("key", [*sorted(set(keys(Settings))), *get_args(Method)])
def test_every_setting_is_told(key: str) -> None:
    page = PAGES["vdpad.toml.5.rst"]
    assert any(word in page for word in (f"\n{key}", f" {key}", f"[{key}", f"*{key}*", f".{key}"))
