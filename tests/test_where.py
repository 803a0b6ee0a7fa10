"""The README's picture is what its source draws, and nothing in it lies over anything else."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from docs.pictures import where
from tests.support.daemon import ROOT


def test_it_is_what_its_source_draws(tmp_path: Path) -> None:
    drawn = list(where.draw(tmp_path))
    assert [each.name for each in drawn] == ["where-light.svg", "where-dark.svg"]
    for each in drawn:
        assert (ROOT / where.PICTURES / each.name).read_bytes() == each.read_bytes(), (
            "run make pictures"
        )


def test_the_readme_opens_with_it() -> None:
    text = (ROOT / "README.md").read_text()
    title, _, picture, *_ = text.split("\n\n")
    assert title == "# vdpad"
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', picture)
    assert shown == ["docs/pictures/where-dark.svg", "docs/pictures/where-light.svg"]


def test_all_words_are_in_it_as_letters() -> None:
    root = ElementTree.parse(ROOT / where.PICTURES / "where-light.svg").getroot()
    said = " ".join(" ".join(root.itertext()).split())
    words = [each.name for each in where.BOXES] + [each.text for each in where.ARROWS]
    for each in words:
        for line in each.splitlines():
            assert line in said


def placed(figure: Figure) -> dict[str, Bbox]:
    """Where its words are, in dots."""
    FigureCanvasAgg(figure)  # measures letters
    texts = [each for each in figure.axes[0].texts if each.get_text()]
    extents = [(each.get_text(), each.get_window_extent()) for each in texts]
    return {f"{place}: {text}": extent for place, (text, extent) in enumerate(extents)}


def test_no_words_lie_over_others_or_beyond_the_edge() -> None:
    figure = where.figure_of("light")
    words = placed(figure)
    assert len(words) == 26
    for (one, here), (other, there) in combinations(words.items(), 2):
        assert not here.overlaps(there), (one, other)
    for each, here in words.items():
        assert figure.bbox.containsx(here.x0), each
        assert figure.bbox.containsx(here.x1), each


def test_the_words_of_a_box_lie_in_it() -> None:
    figure = where.figure_of("light")
    words = placed(figure)
    to_dots = figure.axes[0].transData
    for box in where.BOXES:
        frame = Bbox.from_bounds(box.x, box.y, box.width, box.height).transformed(to_dots)
        named = [here for each, here in words.items() if each.endswith(f": {box.name}")]
        said = [here for each, here in words.items() if box.says and each.endswith(f": {box.says}")]
        assert any(_within(here, frame) for here in named), box
        assert not said or any(_within(here, frame) for here in said), box


def _within(inner: Bbox, outer: Bbox) -> bool:
    corners = [(inner.x0, inner.y0), (inner.x1, inner.y1)]
    return all(outer.fully_contains(*each) for each in corners)
