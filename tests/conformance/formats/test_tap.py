"""The Test Anything Protocol."""

import json

from tests.conformance.formats.results import HOSTILE, mixed, of_hostile_name
from vdpad.conformance.formats.tap import tap


def test_the_plan_comes_first_and_fits() -> None:
    lines = tap(mixed()).splitlines()
    assert lines[:2] == ["TAP version 14", "1..4"]
    points = [each for each in lines if each.startswith(("ok ", "not ok "))]
    assert len(points) == 4
    assert points[0] == "ok 1 - ring.full"
    assert points[1] == "not ok 2 - used.once"
    assert points[2] == "not ok 3 - used.order # TODO SHOULD"
    assert points[3] == "ok 4 - vlan-add.zero # SKIP without \\# CTRL_VLAN"


def test_what_was_seen_stands_in_a_block() -> None:
    lines = tap(mixed()).splitlines()
    start = lines.index("not ok 2 - used.once") + 1
    block = lines[start : lines.index("  ...", start) + 1]
    assert (block[0], block[-1]) == ("  ---", "  ...")
    told = dict(each.strip().split(": ", 1) for each in block[1:-1])
    assert json.loads(told["level"]) == "MUST"
    assert json.loads(told["seen"]) == [HOSTILE, "twice"]


def test_who_was_tested_stands_in_remarks() -> None:
    lines = tap(of_hostile_name()).splitlines()
    remarks = dict(each[2:].split(": ", 1) for each in lines if each.startswith("# "))
    assert remarks["device"] == 'a <b> & "c" # d \\ ]]> ?[2J?'
    assert remarks["kernel"]
    assert remarks["ring size"] == "64"
