"""What --help tells beside the options: sections as in a man page, kept to the terminal's width."""

import argparse
import shutil
from collections.abc import Iterable, Sequence

from vdpad.cli.layout import filled

_INDENT = "  "
# Where texts begin at the latest, as argparse has it for options.
_TEXT_AT = 24


class WithSections(argparse.RawDescriptionHelpFormatter):
    """Leaves description and epilog as they were laid out here."""


def paragraph(text: str) -> str:
    """Running text, broken at the terminal's width."""
    return filled(text, _width(), "")


def section(title: str, entries: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, below a title."""
    at = min(_TEXT_AT, max(len(name) for name, _ in entries) + 2 * len(_INDENT))
    return "\n".join([f"{title}:", *(_entry(*each, at) for each in entries)])


def examples(entries: Iterable[tuple[str, str]]) -> str:
    """What is wanted, and the command for it on a line of its own, however long that is."""
    lines = (
        f"{filled(what, _width(), _INDENT, first=_INDENT)}\n{_INDENT * 2}{command}"
        for what, command in entries
    )
    return "\n".join(["examples:", *lines])


def _entry(name: str, text: str, at: int) -> str:
    """A name and its text behind it; below it where the name is too long for that."""
    behind = " " * at
    first = f"{_INDENT}{name}{_INDENT}".ljust(at)
    if len(first) == at:
        return filled(text, _width(), behind, first=first)
    return f"{first.rstrip()}\n{filled(text, _width(), behind, first=behind)}"


def _width() -> int:
    return max(shutil.get_terminal_size().columns - 2, 2 * _TEXT_AT)
