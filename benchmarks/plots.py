"""Draws the tables of the benchmarks: `make plots` those of docs/benchmarks.md, into docs/pictures.

A table is known by its columns, and drawn twice, for a light page and for a dark one. A picture
says in its description which figures it was drawn from, so that a test can tell when the page has
others by now.

    python -m benchmarks.plots
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

PAGE = Path("docs/benchmarks.md")
PICTURES = Path("docs/pictures")

_INK = {"light": "#24292f", "dark": "#e6edf3"}
_GRID = {"light": "#d0d7de", "dark": "#3d444d"}
_HUES = {
    "light": ("#0969da", "#bf8700", "#1a7f37", "#8250df"),
    "dark": ("#58a6ff", "#d29922", "#3fb950", "#bc8cff"),
}

# In inches: of all pictures, and of a bar's place. 72 dots are an inch in an SVG.
_WIDTH, _BAR, _FRAME = 9.0, 0.19, 1.0

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plot:
    """How a table is drawn."""

    name: str
    labels: tuple[str, ...]
    """The columns that say what a line of the table is about."""
    values: tuple[str, ...]
    """Those that are drawn, each in a color of its own; "" for all that are no labels."""
    axis: str
    """What the values are."""
    of: str = ""
    """Lines that differ in this column alone are one place's bars, in colors of their own."""
    only: tuple[str, str] | None = None
    """A column, and how what stands there begins in lines that are drawn."""
    is_log: bool = False
    is_curve: bool = False
    """The labels are numbers, and the values are curves over them."""


PLOTS = (
    Plot(
        "replay",
        ("device", "ring", "layout", "EVENT_IDX"),
        ("commit ms",),
        "ms of a commit of 4105 commands",
        of="way",
        only=("commands", "41"),
        is_log=True,
    ),
    Plot("looking", ("ring", "poll_us"), ("commit ms",), "ms of a commit", is_log=True),
    Plot("asking", ("who asks",), ("ms",), "ms from the asking to the answer", is_log=True),
    Plot("load", ("method",), ("p50 ms", "p99 ms"), "ms until the answer, 64 clients at once"),
    Plot(
        "kernel",
        ("device", "EVENT_IDX"),
        ("ms",),
        "ms of some 4100 commands on the kernel's devices",
        of="way",
        is_log=True,
    ),
    Plot(
        "shadow",
        ("device", "EVENT_IDX"),
        ("median µs", "p99 µs"),
        "µs of a guest's command through the back end",
    ),
    Plot("packets", ("device",), ("packets/s",), "packets a second past the back end", "back end"),
    Plot("received", ("receive queue",), ("packets/s",), "packets a second by one receive queue"),
    Plot("relay", ("chains",), ("",), "µs of a turn of the relay", is_curve=True, is_log=True),
)


def draw(headers: Sequence[str], rows: Sequence[Sequence[str]], folder: Path) -> Iterator[Path]:
    """Draws a table where it is one of those that are drawn.

    Yields:
        each picture that it wrote.
    """
    plot = plot_of(headers)
    if plot is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for shade in _INK:
        path = folder / f"{plot.name}-{shade}.svg"
        _draw(plot, [dict(zip(headers, each, strict=True)) for each in rows], shade, path)
        yield path


def plot_of(headers: Sequence[str]) -> Plot | None:
    """How a table with these columns is drawn, if it is."""
    for each in PLOTS:
        needed = {each.labels[0], *each.values, each.of} - {""}
        if needed <= set(headers) and headers[0] == each.labels[0]:
            return each
    return None


def tables_of(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The tables of a page in Markdown: columns, and lines."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        cells = [
            [each.strip() for each in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        yield cells[0], cells[2:]


def drawn_tables() -> Iterator[tuple[Plot, list[str], list[list[str]]]]:
    """Those of the page that are drawn: the first for each plot."""
    left = set(PLOTS)
    for headers, rows in tables_of(PAGE.read_text()):
        plot = plot_of(headers)
        if plot in left:
            left.remove(plot)
            yield plot, headers, rows


def digest_of(rows: Iterable[Row]) -> str:
    """By which a picture says what it was drawn from."""
    return hashlib.sha256(repr([sorted(each.items()) for each in rows]).encode()).hexdigest()[:16]


# --- drawing ---


def _draw(plot: Plot, rows: list[Row], shade: str, path: Path) -> None:
    style: dict[Any, Any] = {
        "svg.hashsalt": plot.name,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK[shade],
        "axes.labelcolor": _INK[shade],
        "axes.edgecolor": _GRID[shade],
        "xtick.color": _INK[shade],
        "ytick.color": _INK[shade],
        "grid.color": _GRID[shade],
    }
    digest = digest_of(rows)
    with mpl.rc_context(style):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        (_curves if plot.is_curve else _bars)(plot, rows, axes, _HUES[shade])
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside upper left", frameon=False, ncols=4)
        about = {"Date": None, "Description": f"{plot.axis}, drawn from {digest}"}
        figure.savefig(path, format="svg", transparent=True, metadata=about)


def _bars(plot: Plot, rows: list[Row], axes: Axes, hues: Sequence[str]) -> None:
    if plot.only is not None:
        column, begin = plot.only
        rows = [each for each in rows if each.get(column, "").startswith(begin)]
    places: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        bars = places.setdefault(_label(plot, row), [])
        for column in plot.values:
            bars.append((row[plot.of] if plot.of else column, _number(row[column])))
    kinds = list(dict.fromkeys(kind for bars in places.values() for kind, _ in bars))
    drawn = [value for bars in places.values() for _, value in bars]
    at, ticks, told = 0.0, [], set[str]()
    for bars in places.values():
        ticks.append(at + (len(bars) - 1) / 2)
        for kind, value in bars:
            hue = hues[kinds.index(kind) % len(hues)] if len(kinds) <= len(hues) else hues[0]
            named = len(kinds) > 1 and len(kinds) <= len(hues) and kind not in told
            axes.barh(at, value, 0.8, color=hue, label=kind if named else None)
            text = f"{value:g}" if len(kinds) <= len(hues) else f"{value:g}, {kind}"
            axes.annotate(text, (value, at), (3, -3), textcoords="offset points", fontsize=8)
            told.add(kind)
            at += 1
        at += 0.6
    axes.set_yticks(ticks, list(places))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(plot.axis + (", on a scale of powers of ten" if plot.is_log else ""))
    least, most = min(drawn), max(drawn)
    if plot.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(10 ** floor(log10(least)), most * (6 if len(kinds) > len(hues) else 2))
    else:
        axes.set_xlim(0, most * 1.1)
    axes.margins(y=0.01)
    axes.grid(axis="x", linewidth=0.6)
    axes.figure.set_size_inches(_WIDTH, _FRAME + _BAR * at)  # type: ignore[union-attr]


def _curves(plot: Plot, rows: list[Row], axes: Axes, hues: Sequence[str]) -> None:
    (label,) = plot.labels
    columns = [each for each in rows[0] if each != label]
    for column, hue in zip(columns, hues, strict=False):
        points = [(_number(row[label]), _number(row[column])) for row in rows if row[column]]
        shown = [each for each in points if each[0] > 0]
        axes.plot(*zip(*shown, strict=True), color=hue, marker="o", markersize=3, label=column)
    axes.set_xscale("log", base=2)
    axes.set_xticks([_number(row[label]) for row in rows if _number(row[label]) > 0])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.minorticks_off()
    axes.set_xlabel(f"{label} that a turn gives back; the curves are rings by their entries")
    axes.set_ylabel(plot.axis)
    axes.set_ylim(bottom=0)
    axes.grid(linewidth=0.6)
    axes.figure.set_size_inches(_WIDTH, 3.4)  # type: ignore[union-attr]


def _label(plot: Plot, row: Row) -> str:
    parts = []
    for column in plot.labels:
        value = row.get(column, "")
        if column == "EVENT_IDX":
            parts.append("EVENT_IDX" if value == "yes" else "no EVENT_IDX")
        elif value:
            parts.append(f"{column} {value}" if value.isdecimal() else value)
    return ", ".join(parts)


def _number(text: str) -> float:
    return float(text.replace(" ", ""))


def main() -> None:
    """Draws those of docs/benchmarks.md."""
    for _, headers, rows in drawn_tables():
        for path in draw(headers, rows, PICTURES):
            print(path)


if __name__ == "__main__":
    main()
