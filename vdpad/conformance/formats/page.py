"""A page for a browser: one HTML file with nothing from outside, the times as a picture in it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from vdpad.conformance.case import Verdict
from vdpad.conformance.formats.times_picture import times_picture
from vdpad.conformance.formats.wording import identified, plain, said
from vdpad.conformance.self_test import Comparison, SelfTest

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; }
table { border-collapse: collapse; margin: .5em 0 1.5em; }
th, td { border-bottom: 1px solid #8884; padding: .2em .8em .2em 0; text-align: left;
         vertical-align: top; }
code { font-family: ui-monospace, monospace; }
.fail { color: #c62828; font-weight: bold; }
.note { color: #b26a00; }
.pass { color: #2e7d32; }
.not-applicable { color: #888; }
svg { width: 100%; height: auto; font-size: 11px; fill: currentColor; }
svg .p50 { fill: #3f7fbf; }
svg .batch { fill: #8fb98f; }
svg .p99 { stroke: #c62828; stroke-width: 2; }
svg .grid { stroke: #8884; }
svg .scale { text-anchor: middle; }
"""


def page(result: SelfTest) -> str:
    """The file's text."""
    title = plain(f"vdpactl selftest {result.identity.device}")
    html = ET.Element("html", lang="en")
    head = ET.SubElement(html, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    ET.SubElement(head, "title").text = title
    ET.SubElement(head, "style").text = _STYLE
    body = ET.SubElement(html, "body")
    ET.SubElement(body, "h1").text = title
    _add_table(body, (), identified(result))
    _add_findings(body, result)
    if result.comparison is not None:
        _add_comparison(body, result.comparison)
    _add_times(body, result)
    _add_cases(body, result)
    return f"<!DOCTYPE html>\n{ET.tostring(html, encoding='unicode', method='html')}\n"


def _add_findings(body: ET.Element, result: SelfTest) -> None:
    ET.SubElement(body, "h2").text = "Findings"
    counts = Counter(each.verdict for each in result.cases)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    ET.SubElement(body, "p").text = f"{len(result.cases)} cases: {told}."
    if not result.findings:
        ET.SubElement(body, "p").text = "Nothing was found that a device should not do."
    lines = [*((each, "fail") for each in result.findings), *((each, "") for each in result.notes)]
    if lines:
        listed = ET.SubElement(body, "ul")
        for text, kind in lines:
            ET.SubElement(listed, "li", {"class": kind}).text = plain(text)


def _add_comparison(body: ET.Element, comparison: Comparison) -> None:
    ET.SubElement(body, "h2").text = plain(
        f"Compared with {comparison.device}, {comparison.date}, vdpad {comparison.vdpad}"
    )
    cases = (
        ("worse", comparison.worse),
        ("better", comparison.better),
        ("other", comparison.applicability),
    )
    times = (("slower", comparison.slower), ("faster", comparison.faster))
    rows = [
        *(
            (how, each.id, str(each.before), str(each.now))
            for how, those in cases
            for each in those
        ),
        *(
            (how, each.id, f"{each.before_us:.1f} µs", f"{each.now_us:.1f} µs")
            for how, those in times
            for each in those
        ),
        *(("gone", each, "", "") for each in comparison.only_before),
        *(("new", each, "", "") for each in comparison.only_now),
    ]
    if rows:
        _add_table(body, ("change", "case or command", "before", "now"), rows)
    else:
        ET.SubElement(body, "p").text = "No case and no time is another."


def _add_times(body: ET.Element, result: SelfTest) -> None:
    ET.SubElement(body, "h2").text = f"Times in microseconds, of {result.repeat} rounds"
    picture = times_picture(result)
    if picture is None:
        ET.SubElement(body, "p").text = "No round was whole."
    else:
        body.append(picture)
    rows = [
        ("one by one", _us(result.alone.p50_us), _us(result.alone.p99_us), result.alone.doorbells),
        (
            "as one batch",
            _us(result.batch.p50_us),
            _us(result.batch.p99_us),
            result.batch.doorbells,
        ),
    ]
    _add_table(body, ("all commands", "p50", "p99", "doorbells"), rows)


def _us(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.1f}"


def _add_cases(body: ET.Element, result: SelfTest) -> None:
    ET.SubElement(body, "h2").text = "Cases"
    rows = [
        (each.verdict, each.id, each.level, each.clause, each.title, said(each))
        for each in result.cases
    ]
    headings = ("verdict", "case", "level", "virtio 1.4", "what holds", "seen")
    _add_table(body, headings, rows, kinds=[each.verdict for each in result.cases])


def _add_table(
    body: ET.Element,
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    kinds: Sequence[str] = (),
) -> None:
    """A table; the first cell of each row is of a kind, where kinds are given."""
    table = ET.SubElement(body, "table")
    if headings:
        top = ET.SubElement(table, "tr")
        for heading in headings:
            ET.SubElement(top, "th").text = heading
    for at, row in enumerate(rows):
        line = ET.SubElement(table, "tr")
        for column, value in enumerate(row):
            kind = {"class": kinds[at]} if kinds and not column else {}
            ET.SubElement(line, "td", kind).text = plain(str(value))
