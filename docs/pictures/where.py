"""Where vdpad stands between guest, VMM, device and orchestrator: the README's picture.

`make pictures` draws it twice, for a light page and for a dark one. What is in it is said below, in
units of a hundredth of its width, from its lower left corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PICTURES = Path("docs/pictures")

# In inches; 72 dots are an inch in an SVG.
WIDTH = 9.0
HEIGHT = 50.5


class Box(NamedTuple):
    """Somebody who is there, with where he is."""

    name: str
    x: float
    y: float
    width: float
    height: float
    says: str = ""
    """What he does, in small letters below."""
    hue: str = "plain"


class Arrow(NamedTuple):
    """What goes from one place to another."""

    start: tuple[float, float]
    end: tuple[float, float]
    text: str
    at: tuple[float, float]
    """Where the text is."""
    align: str = "center"
    style: str = "-|>"
    hue: str = "ink"


class Words(NamedTuple):
    """What is below."""

    text: str
    x: float
    y: float


BOXES = (
    Box("orchestrator", 2, 42.5, 96, 6.5, "brings what the guest has set on its source"),
    Box("VMM", 2, 16, 15, 18),
    Box("guest", 3.5, 20.5, 12, 7.5, "stands still", "guest"),
    Box(
        "vdpad",
        31.5,
        16,
        15.5,
        18,
        "checks, encodes\nbeforehand, tells\nwhat came of\neach command",
        "ours",
    ),
    Box("vDPA device", 2, 4.5, 45, 5),
    Box("VMM", 53, 16, 15, 18),
    Box("guest", 54.5, 20.5, 12, 7.5, "runs", "guest"),
    Box(
        "vdpad-vhost-user",
        81,
        16,
        17,
        18,
        "passes commands\non, and knows what\nthe guest has set",
        "ours",
    ),
    Box("vDPA device", 53, 4.5, 45, 5),
)
ARROWS = (
    Arrow((39.25, 42.5), (39.25, 34), "check, prepare", (38.4, 38.25), "right"),
    Arrow((17, 28), (31.5, 28), "commit: lends its\ncontrol queue", (24.25, 31)),
    Arrow((31.5, 22), (17, 22), "report, and the\nqueue back", (24.25, 19)),
    Arrow(
        (39.25, 16), (39.25, 9.5), "what the guest had set,\nas one batch", (38.4, 12.75), "right"
    ),
    Arrow((6, 20.5), (6, 9.5), "packets", (6.9, 12.75), "left", "<|-|>", "grey"),
    Arrow((89.5, 42.5), (89.5, 34), "check, capture, switch", (88.6, 38.25), "right"),
    Arrow((68, 28), (81, 28), "the guest's\ncommands\n(vhost-user)", (74.5, 32)),
    Arrow((81, 22), (68, 22), "the state, for\nthe VMM's\nstream", (74.5, 18), style="<|-|>"),
    Arrow(
        (89.5, 16),
        (89.5, 9.5),
        "the guest's commands;\nafter a move, its state",
        (88.6, 12.75),
        "right",
    ),
    Arrow((57, 20.5), (57, 9.5), "packets", (57.9, 12.75), "left", "<|-|>", "grey"),
)
CAPTIONS = (
    Words("A VMM lends its control queue, once, while its guest stands still", 24.5, 2),
    Words("A VMM without a shadow of that queue is given a back end", 75.5, 2),
)

HUES = {
    "light": {"ink": "#24292f", "grey": "#6e7781", "plain": "#f6f8fa", "guest": "#ffffff"},
    "dark": {"ink": "#e6edf3", "grey": "#8b949e", "plain": "#21262d", "guest": "#0d1117"},
}
OURS = {"light": ("#ddf4ff", "#0969da"), "dark": ("#0c2d6b", "#58a6ff")}


# Letters stay letters, so that the picture can be searched and needs no font of ours.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "where",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}


def draw(folder: Path) -> Iterator[Path]:
    """Draws it into a folder.

    Yields:
        each file that it wrote.
    """
    for shade in HUES:
        path = folder / f"where-{shade}.svg"
        with mpl.rc_context(STYLE):
            figure = figure_of(shade)
            figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
        yield path


def figure_of(shade: str) -> Figure:
    """The picture for a page of this shade."""
    with mpl.rc_context({**STYLE, "text.color": HUES[shade]["ink"]}):
        figure = Figure((WIDTH, WIDTH * HEIGHT / 100))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 100)
        axes.set_ylim(0, HEIGHT)
        for box in BOXES:
            _box(axes, box, shade)
        for arrow in ARROWS:
            _arrow(axes, arrow, shade)
        for words in CAPTIONS:
            axes.text(words.x, words.y, words.text, fontsize=8.5, ha="center", va="center")
    return figure


def _box(axes: Axes, box: Box, shade: str) -> None:
    fill, edge = HUES[shade].get(box.hue, ""), HUES[shade]["grey"]
    if box.hue == "ours":
        fill, edge = OURS[shade]
    shape = "round,pad=0,rounding_size=0.9"
    corner = (box.x, box.y)
    axes.add_patch(
        FancyBboxPatch(corner, box.width, box.height, shape, facecolor=fill, edgecolor=edge)
    )
    middle = box.x + box.width / 2
    top = box.y + box.height - 2.5
    axes.text(middle, top, box.name, fontsize=10, weight="bold", ha="center", va="center")
    axes.text(middle, top - 2.2, box.says, fontsize=8, ha="center", va="top")


def _arrow(axes: Axes, arrow: Arrow, shade: str) -> None:
    patch = FancyArrowPatch(
        arrow.start,
        arrow.end,
        arrowstyle=arrow.style,
        mutation_scale=11,
        shrinkA=0,
        shrinkB=0,
        linewidth=1.4,
        color=HUES[shade][arrow.hue],
    )
    axes.add_patch(patch)
    axes.text(*arrow.at, arrow.text, fontsize=8, ha=arrow.align, va="center")


if __name__ == "__main__":
    for drawn in draw(PICTURES):
        print(drawn)
