"""The Test Anything Protocol, version 14: a test point for each case of the suite.

What is not applicable is skipped. A note is a TODO: not ok, and no failure.
"""

import json
from collections.abc import Iterator

from vdpad.conformance.case import Verdict
from vdpad.conformance.formats.wording import identified, plain, said
from vdpad.conformance.self_test import SelfTest, ToldCase


def tap(result: SelfTest) -> str:
    """The lines."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: SelfTest) -> Iterator[str]:
    yield "TAP version 14"
    yield f"1..{len(result.cases)}"
    for name, value in identified(result):
        yield f"# {name}: {plain(value)}"
    for number, case in enumerate(result.cases, 1):
        yield from _point(number, case)


def _point(number: int, case: ToldCase) -> Iterator[str]:
    told = f"{number} - {_escaped(case.id)}"
    match case.verdict:
        case Verdict.PASS:
            yield f"ok {told}"
        case Verdict.NOT_APPLICABLE:
            yield f"ok {told} # SKIP {_escaped(said(case))}"
        case Verdict.NOTE:
            yield f"not ok {told} # TODO {case.level}"
            yield from _diagnosed(case)
        case Verdict.FAIL:
            yield f"not ok {told}"
            yield from _diagnosed(case)


def _diagnosed(case: ToldCase) -> Iterator[str]:
    """A block of YAML, of which JSON is a part."""
    yield "  ---"
    for name, value in (
        ("level", case.level),
        ("clause", f"virtio 1.4, {case.clause}"),
        ("title", case.title),
        ("seen", list(case.seen)),
    ):
        yield f"  {name}: {json.dumps(value, ensure_ascii=False)}"
    yield "  ..."


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("#", "\\#")
