"""JUnit's XML, as CI systems read it: a test case for each case of the suite.

What fails is a failure, what is not applicable is skipped. JUnit has no notes: a case with one has
passed, and says it as its output. The class of a case is what stands before the dot of its id.
"""

from xml.etree import ElementTree as ET

from vdpad.conformance.case import Verdict
from vdpad.conformance.formats.wording import identified, plain, said
from vdpad.conformance.self_test import SelfTest, ToldCase


def junit(result: SelfTest) -> str:
    """The document."""
    suites = ET.Element("testsuites")
    verdicts = [each.verdict for each in result.cases]
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=plain(f"vdpactl selftest {result.identity.device}"),
        tests=str(len(verdicts)),
        failures=str(verdicts.count(Verdict.FAIL)),
        errors="0",
        skipped=str(verdicts.count(Verdict.NOT_APPLICABLE)),
        time=f"{result.identity.seconds:.3f}",
        timestamp=result.identity.date,
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in [*identified(result), *_times(result)]:
        ET.SubElement(properties, "property", name=name, value=plain(value))
    for case in result.cases:
        _add(suite, case)
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _times(result: SelfTest) -> list[tuple[str, str]]:
    """Those of all commands: of the cases, no time is told."""
    return [
        (f"{name} {what} µs", f"{value:.1f}")
        for name, total in (("one by one", result.alone), ("as one batch", result.batch))
        for what, value in (("p50", total.p50_us), ("p99", total.p99_us))
        if value is not None
    ]


def _add(suite: ET.Element, case: ToldCase) -> None:
    group = case.id.partition(".")[0]
    told = ET.SubElement(suite, "testcase", classname=f"selftest.{group}", name=case.id)
    clause = f"{case.level} {case.title} (virtio 1.4, {case.clause})"
    match case.verdict:
        case Verdict.FAIL:
            failure = ET.SubElement(told, "failure", type=case.level, message=said(case))
            failure.text = clause
        case Verdict.NOT_APPLICABLE:
            ET.SubElement(told, "skipped", message=said(case))
        case Verdict.NOTE:
            ET.SubElement(told, "system-out").text = f"note: {said(case)}\n{clause}"
