"""The man pages are whole: every method, option and setting is in them, and they can be made."""

import argparse
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from docutils.core import publish_string
from pydantic import BaseModel

from vdpad.cli import vdpactl, vdpad
from vdpad.daemon.settings import Method, Settings

MAN = Path(__file__).parents[1] / "docs" / "man"
PAGES = {path.name: path.read_text() for path in sorted(MAN.glob("*.rst"))}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_made_without_a_warning(page: str) -> None:
    options = {"halt_level": 2, "output_encoding": "unicode"}
    made = publish_string(PAGES[page], writer="manpage", settings_overrides=options)
    name, section, _ = page.rsplit(".", 2)
    assert f'.TH "{name}" "{section}"' in made
    assert ".SH SYNOPSIS" in made


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


@pytest.mark.parametrize("option", sorted(set(options(vdpactl._parser())) - {"--help"}))
def test_vdpactl_s_options_are_told(option: str) -> None:
    assert option in PAGES["vdpactl.1.rst"]


@pytest.mark.parametrize("method", methods(vdpactl._parser()))
def test_vdpactl_s_methods_are_told(method: str) -> None:
    assert f"\n{method}" in PAGES["vdpactl.1.rst"]


@pytest.mark.parametrize("option", sorted(set(options(vdpad._parser())) - {"--help"}))
def test_vdpad_s_options_are_told(option: str) -> None:
    assert option in PAGES["vdpad.8.rst"]


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
