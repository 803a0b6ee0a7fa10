"""The times of a result as a picture: SVG, for a page that has nothing from outside.

A row is a command, or all of them for each. Its bar goes to the 50th percentile alone, the thin one
below to that in a batch of its like, and its tick stands at the 99th alone; all on one logarithmic
scale, as a batch takes a tenth of a command alone.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree as ET

from vdpad.conformance.self_test import SelfTest

_ROW = 20
_BAR = 11
_THIN = 4
_TOP = 24
_LABELS = 330
_SCALE = 560
_FIGURES = 150
_LEAST = 0.1
_NAMESPACE = "http://www.w3.org/2000/svg"


class _Timed(NamedTuple):
    label: str
    p50: float
    p99: float
    batch: float | None = None
    """The 50th in a batch of its like."""


def times_picture(result: SelfTest) -> ET.Element | None:
    """The picture; None where nothing was timed."""
    rows = list(_rows(result))
    if not rows:
        return None
    first, last = _decades(rows)
    height = _TOP + _ROW * len(rows)
    picture = ET.Element(
        "svg", viewBox=f"0 0 {_LABELS + _SCALE + _FIGURES} {height}", role="img", xmlns=_NAMESPACE
    )
    ET.SubElement(
        picture, "title"
    ).text = "microseconds: 50th (bar; thin: in a batch) and 99th percentile (tick)"
    for decade in range(first, last + 1):
        _grid(picture, _at(10.0**decade, first, last), height, f"{10.0**decade:g} µs")
    for number, row in enumerate(rows):
        _draw(picture, row, _TOP + _ROW * number, first, last)
    return picture


def _rows(result: SelfTest) -> Iterator[_Timed]:
    for each in result.commands:
        if each.alone.p50_us is not None and each.alone.p99_us is not None:
            label = f"{each.command} {each.arguments}"
            yield _Timed(label, each.alone.p50_us, each.alone.p99_us, each.batch.p50_us)
    count = len(result.commands)
    for label, total in (
        ("one by one, each", result.alone),
        ("as one batch, each", result.batch),
    ):
        if count and total.p50_us is not None and total.p99_us is not None:
            yield _Timed(label, total.p50_us / count, total.p99_us / count)


def _decades(rows: list[_Timed]) -> tuple[int, int]:
    """The powers of ten that the scale begins and ends with."""
    first = math.floor(math.log10(max(_LEAST, min(map(min, _bars(rows))))))
    last = math.ceil(math.log10(max(_LEAST, max(row.p99 for row in rows))))
    return first, max(last, first + 1)


def _bars(rows: list[_Timed]) -> list[list[float]]:
    return [[each for each in (row.p50, row.batch) if each is not None] for row in rows]


def _at(microseconds: float, first: int, last: int) -> float:
    """Where a time stands, in the picture's units from its left."""
    share = (math.log10(max(_LEAST, microseconds)) - first) / (last - first)
    return round(_LABELS + _SCALE * min(1.0, max(0.0, share)), 1)


def _grid(picture: ET.Element, at: float, height: int, label: str) -> None:
    line = {"x1": str(at), "x2": str(at), "y1": str(_TOP - 6), "y2": str(height)}
    ET.SubElement(picture, "line", {"class": "grid", **line})
    ET.SubElement(picture, "text", {"class": "scale", "x": str(at), "y": "12"}).text = label


def _draw(picture: ET.Element, row: _Timed, top: int, first: int, last: int) -> None:
    bar, tick = _at(row.p50, first, last), _at(row.p99, first, last)
    middle = str(top + _BAR - 2)
    words = _shortened(row.label)
    ET.SubElement(picture, "text", x="0", y=middle).text = words
    _bar(picture, "p50", bar, top, _BAR)
    if row.batch is not None:
        _bar(picture, "batch", _at(row.batch, first, last), top + _BAR, _THIN)
    ends = {"x1": str(tick), "x2": str(tick), "y1": str(top - 1), "y2": str(top + _BAR + 1)}
    ET.SubElement(picture, "line", {"class": "p99", **ends})
    figures = f"{row.p50:.1f}, {row.p99:.1f}"
    ET.SubElement(picture, "text", x=str(_LABELS + _SCALE + 8), y=middle).text = figures


def _bar(picture: ET.Element, kind: str, end: float, top: int, height: int) -> None:
    sizes = {"width": str(round(max(1.0, end - _LABELS), 1)), "height": str(height)}
    ET.SubElement(picture, "rect", {"class": kind, "x": str(_LABELS), "y": str(top), **sizes})


def _shortened(label: str, most: int = 46) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"
