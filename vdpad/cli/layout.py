"""Text for people: tables, fields and sentences that keep to their terminal's width.

A table that is too wide gives room where it has most: its widest columns are wrapped first, between
words. Only where that is not enough are words broken, so that a name stays whole if it can. A table
of what is known by its name leaves out columns before it breaks any.

What is told may be another user's: a path, a name, a line of somebody's file. So no letter gets
through by which a terminal is told anything.
"""

import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from vdpad.cli.terminal import printable, width_of

# tabulate's: between columns, and what a heading's column has beside the heading.
_GAP = 2
_BESIDE_HEADING = 2


def table(rows: Iterable[Sequence[Any]], *headings: str, to: TextIO | None = None) -> str:
    """Rows below headings.

    Args:
        rows: as many values each as there are headings.
        headings: one for each column.
        to: where it will be printed; None is standard output.
    """
    cells = _cells(rows)
    return _laid_out(cells, headings, _widths(cells, headings, _width(to)))


def table_by_name(rows: Iterable[Sequence[Any]], *headings: str, spare: Sequence[str] = ()) -> str:
    """The same for standard output, where words stay whole if they can.

    Args:
        rows: as many values each as there are headings.
        headings: one for each column.
        spare: those of the columns that are left out where there is no room, the first one first.
    """
    cells = _cells(rows)
    width = _width(None)
    for count in range(len(spare) + 1):
        kept = [at for at, heading in enumerate(headings) if heading not in spare[:count]]
        left = [[row[at] for at in kept] for row in cells]
        named = [headings[at] for at in kept]
        words = _measured(left, named, _longest_word)
        if width is None or sum(words) <= _room(width, words):
            break
    return _laid_out(left, named, _widths(left, named, width))


def _laid_out(
    cells: Sequence[Sequence[str]], headings: Sequence[str], widths: list[int] | None
) -> str:
    return _tabulated(
        cells,
        headers=headings,
        tablefmt="simple",
        maxcolwidths=widths,
        maxheadercolwidths=widths and [each - _BESIDE_HEADING for each in widths],
    )


def fields(pairs: Iterable[Sequence[Any]]) -> str:
    """Names and what stands behind each, for standard output."""
    cells = _cells(pairs)
    widths = _widths(cells, (), _width(None))
    return _tabulated(cells, tablefmt="plain", maxcolwidths=widths)


def _tabulated(cells: Sequence[Sequence[str]], **more: Any) -> str:
    # A quarter of what vdpactl takes to start, and most commands print no table.
    from tabulate import tabulate

    return tabulate(cells, disable_numparse=True, break_on_hyphens=False, **more)


def _cells(rows: Iterable[Sequence[Any]]) -> list[list[str]]:
    return [[printable(str(each)) for each in row] for row in rows]


def counted(number: int, what: str) -> str:
    """So many of something, by its word for one."""
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def sentence(text: str, indent: str = "  ") -> str:
    """A line for standard output, as several where it is too long; the others are indented."""
    text, width = printable(text), _width(None)
    return text if width is None else filled(text, width, indent)


def filled(text: str, width: int, indent: str, first: str = "") -> str:
    """Lines of at most so many columns, unless a word is longer.

    Args:
        text: without line breaks.
        width: in columns.
        indent: of all lines but the first.
        first: what the first line begins with.
    """
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width(to: TextIO | None) -> int | None:
    return width_of(sys.stdout if to is None else to)


def _widths(
    cells: Sequence[Sequence[str]], headings: Sequence[str], width: int | None
) -> list[int] | None:
    """How wide each column may be; None where all fit as they are."""
    whole = _measured(cells, headings, len)
    words = _measured(cells, headings, _longest_word)
    if width is None or not whole:
        return None
    room = _room(width, whole)
    return None if sum(whole) <= room else _fitted(whole, words, room)


def _measured(
    cells: Sequence[Sequence[str]], headings: Sequence[str], of: Callable[[str], int]
) -> list[int]:
    """The most that each column's texts measure."""
    columns = list(zip(*cells, strict=True)) if cells else [()] * len(headings)
    measured = [max(map(of, column), default=0) for column in columns]
    for at, heading in enumerate(headings):
        measured[at] = max(measured[at], of(heading) + _BESIDE_HEADING)
    return measured


def _room(width: int, columns: Sequence[int]) -> int:
    return width - _GAP * (len(columns) - 1)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _fitted(whole: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widths for a room that is less than their sum."""
    narrowest = [_BESIDE_HEADING + 1] * len(whole)
    for least in (words, narrowest):
        for most in range(max(whole), 0, -1):
            widths = [max(few, min(many, most)) for many, few in zip(whole, least, strict=True)]
            if sum(widths) <= room:
                return widths
    return narrowest
