"""The pictures of docs/benchmarks.md are those of its tables."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.plots import PICTURES, PLOTS, Plot, digest_of, draw, drawn_tables, plot_of
from tests.support.daemon import ROOT

TABLES = {plot.name: (headers, rows) for plot, headers, rows in drawn_tables()}
SHADES = ("light", "dark")


@pytest.mark.parametrize("shade", SHADES)
@pytest.mark.parametrize("name", TABLES)
def test_a_picture_is_of_the_figures_that_the_page_has(name: str, shade: str) -> None:
    headers, rows = TABLES[name]
    digest = digest_of(dict(zip(headers, each, strict=True)) for each in rows)
    picture = ROOT / PICTURES / f"{name}-{shade}.svg"
    assert f"drawn from {digest}" in picture.read_text(), "run make plots"


def test_the_page_shows_each_picture_and_none_that_there_is_not() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    shown = set(re.findall(r'(?:src|srcset)="pictures/([^"]+)"', page))
    drawn = {f"{name}-{shade}.svg" for name in TABLES for shade in SHADES}
    assert shown == drawn
    assert drawn <= {each.name for each in (ROOT / PICTURES).iterdir()}


@pytest.mark.parametrize("plot", [each for each in PLOTS if each.name in TABLES])
def test_drawn_anew_it_says_what_the_table_says(plot: Plot, tmp_path: Path) -> None:
    headers, rows = TABLES[plot.name]
    light, dark = draw(headers, rows, tmp_path)
    assert light.read_bytes() != dark.read_bytes()
    # Letters stay letters, so that a page can be searched and needs no font of ours.
    texts = "\n".join(ElementTree.parse(light).getroot().itertext())
    assert plot.axis in texts
    drawn = [each for each in rows if plot.only is None or each[3].startswith(plot.only[1])]
    for row in drawn:
        for column in plot.values:
            if column and not plot.is_curve:
                assert f"{float(row[headers.index(column)]):g}" in texts


def test_a_table_of_other_columns_is_not_drawn(tmp_path: Path) -> None:
    assert plot_of(["device", "pages"]) is None
    assert list(draw(["device", "pages"], [["vp0", "4 KiB"]], tmp_path)) == []
    assert not list(tmp_path.iterdir())
