"""The page, which shows all of it and fetches nothing."""

import pytest

from tests.conformance.formats.readers import Reader
from tests.conformance.formats.results import HOSTILE, mixed, of_hostile_name
from tests.conformance.results import outcome, self_test
from vdpad.conformance.case import Verdict
from vdpad.conformance.comparison import compared
from vdpad.conformance.formats.page import page
from vdpad.conformance.self_test import SelfTest
from vdpad.conformance.timing import Spread

EVERY = [mixed(), of_hostile_name(), self_test(spread=None)]


@pytest.mark.parametrize("result", EVERY)
def test_each_element_is_closed(result: SelfTest) -> None:
    assert Reader(page(result)).open == []


@pytest.mark.parametrize("result", EVERY)
def test_nothing_comes_from_outside(result: SelfTest) -> None:
    text = page(result)
    elements = Reader(text).elements
    assert {"script", "link", "img", "iframe", "object", "embed", "base", "a"}.isdisjoint(
        tag for tag, _ in elements
    )
    for _, attributes in elements:
        assert {"src", "href", "srcset", "style", "onload"}.isdisjoint(attributes)
    assert "url(" not in text
    assert "@import" not in text


def test_text_is_text_whoever_wrote_it() -> None:
    reader = Reader(page(of_hostile_name()))
    shown = HOSTILE.replace("\x1b", "?").replace("\n", "?")
    assert f"vdpactl selftest {shown}" in reader.text
    assert "b" not in {tag for tag, _ in reader.elements}
    assert "\x1b" not in page(of_hostile_name())


def test_it_says_who_and_what_of_each_case() -> None:
    reader = Reader(page(mixed()))
    for said in ("mlx5_core", "CTRL_VQ, CTRL_VLAN", "ring.full", "used.once", "5 of 8 commands"):
        assert said in reader.text
    cells = [attributes.get("class") for tag, attributes in reader.elements if tag == "td"]
    assert [each for each in cells if each] == ["pass", "fail", "note", "not-applicable"]


def test_what_has_changed() -> None:
    before, now = self_test(outcome("ring.full")), self_test(spread=Spread(100, 200))
    told = now.model_copy(update={"comparison": compared(before, now)})
    text = Reader(page(told)).text
    assert {"slower", "VLAN_ADD vid=1", "10.0 µs", "100.0 µs", "gone"} <= set(text)
    without = self_test(outcome("ring.full", Verdict.NOT_APPLICABLE, "without CTRL_VLAN"))
    told = without.model_copy(update={"comparison": compared(before, without)})
    assert {"other", "not-applicable"} <= set(Reader(page(told)).text)
    same = before.model_copy(update={"comparison": compared(before, before)})
    assert "No case and no time is another." in Reader(page(same)).text
