"""The picture of the times."""

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from tests.conformance.results import ANSWERED, self_test
from vdpad.conformance.answers import CommandOutcome
from vdpad.conformance.formats.times_picture import times_picture
from vdpad.conformance.self_test import SelfTest
from vdpad.conformance.timing import Spread
from vdpad.virtio.commands import VlanDel


def drawn(result: SelfTest) -> ET.Element:
    """The picture, which is there."""
    picture = times_picture(result)
    assert picture is not None
    return picture


def of_class(picture: ET.Element, name: str) -> list[ET.Element]:
    """Its parts of this kind."""
    return [each for each in picture.iter() if each.get("class") == name]


def test_every_command_and_both_ways_have_a_bar_and_a_tick() -> None:
    picture = drawn(self_test(answers=[ANSWERED, CommandOutcome(VlanDel(9), 0, 1.0, 0)]))
    assert len(of_class(picture, "p50")) == len(of_class(picture, "p99")) == 4
    assert len(of_class(picture, "batch")) == 2
    words = [each.text for each in picture.iter("text")]
    assert {"VLAN_ADD vid=1", "VLAN_DEL vid=9", "10.0, 20.0", "2.0, 2.5"} <= set(words)


@pytest.mark.parametrize("spread", [Spread(0.0, 0.0), Spread(3.0, 3.0), Spread(0.5, 1e7)])
def test_all_of_it_stands_on_the_scale(spread: Spread) -> None:
    picture = drawn(self_test(spread=spread))
    lines = [float(each.get("x1", "")) for each in of_class(picture, "grid")]
    assert lines == sorted(set(lines))
    assert len(lines) >= 2
    for tick in of_class(picture, "p99"):
        assert lines[0] <= float(tick.get("x1", "")) <= lines[-1]
    for bar in (*of_class(picture, "p50"), *of_class(picture, "batch")):
        assert 0 < float(bar.get("width", "")) <= lines[-1] - lines[0]


def test_ten_times_as_long_is_a_decade_further() -> None:
    picture = drawn(self_test(spread=Spread(10.0, 100.0), batch=Spread(1.0, 1000.0)))
    lines = [float(each.get("x1", "")) for each in of_class(picture, "grid")]
    steps = [round(later - earlier) for earlier, later in pairwise(lines)]
    assert len(set(steps)) == 1
    tick = of_class(picture, "p99")[0]
    bar = of_class(picture, "p50")[0]
    end = float(bar.get("x", "")) + float(bar.get("width", ""))
    assert round(float(tick.get("x1", "")) - end) == steps[0]


def test_nothing_is_drawn_where_nothing_was_timed() -> None:
    assert times_picture(self_test(spread=None)) is None
