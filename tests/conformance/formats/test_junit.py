"""JUnit's XML, by the names that CI systems know."""

from xml.etree import ElementTree as ET

import pytest

from tests.conformance.formats.results import mixed, of_hostile_name
from tests.conformance.results import self_test
from vdpad.conformance.formats.junit import junit
from vdpad.conformance.self_test import SelfTest


def suite_of(result: SelfTest) -> ET.Element:
    """The one suite of a document, as another reads it."""
    (suite,) = ET.fromstring(junit(result).encode())
    assert suite.tag == "testsuite"
    return suite


def test_the_suite_counts_its_cases() -> None:
    suite = suite_of(mixed())
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    assert suite.get("time") == "1.500"
    assert suite.get("timestamp") == "2026-11-28T09:30:00Z"


def test_who_was_tested_stands_in_properties() -> None:
    told = {each.get("name"): each.get("value") for each in suite_of(mixed()).iter("property")}
    assert told["device"] == "vdpa0"
    assert told["parent driver"] == "mlx5_core"
    assert told["ring size"] == "64"
    assert told["features"] == "CTRL_VQ, CTRL_VLAN"
    assert told["one by one p50 µs"] == "10.0"


def test_each_case_has_its_verdict() -> None:
    passed, failed, noted, skipped = suite_of(mixed()).iter("testcase")
    assert (passed.get("classname"), passed.get("name")) == ("selftest.ring", "ring.full")
    assert list(passed) == []
    (failure,) = failed
    assert (failure.tag, failure.get("type")) == ("failure", "MUST")
    assert failure.get("message") == 'a <b> & "c" # d \\ ]]> ?[2J?; twice'
    assert failure.text == (
        'MUST each comes back once (virtio 1.4, 2.7.8 "The Virtqueue Used Ring")'
    )
    (output,) = noted
    assert output.tag == "system-out"
    assert (output.text or "").startswith("note: a <b>")
    (skip,) = skipped
    assert (skip.tag, skip.get("message")) == ("skipped", "without # CTRL_VLAN")


@pytest.mark.parametrize("result", [of_hostile_name(), self_test(spread=None)])
def test_it_is_xml_whatever_the_device(result: SelfTest) -> None:
    assert suite_of(result) is not None
