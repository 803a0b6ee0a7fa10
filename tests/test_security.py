"""docs/security.md says what the code has: its bounds, settings, and the tests that hold them."""

import importlib
import re

import pytest

from tests.support.daemon import ROOT
from tests.support.pages import quoted, table
from vdpad.daemon.settings import Settings

PAGE = (ROOT / "docs" / "security.md").read_text()

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}

WHO = table(PAGE, "who", "is trusted with", "can", "cannot", "tested by")
HANDED_OVER = table(PAGE, "handed over", "what a peer could do with it", "so", "tested by")
BOUNDS = table(PAGE, "what", "by", "number", "past it", "tested by")


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_what_is_said_to_test_it_is_there_and_tests(named: str) -> None:
    assert re.search(r"^(async )?def \w+\(|^Test\w+ = ", (ROOT / named).read_text(), re.M)


def test_each_row_names_its_tests() -> None:
    for row in [*WHO, *HANDED_OVER, *BOUNDS]:
        is_named = all(each.startswith("tests/") for each in quoted(row[-1])) and quoted(row[-1])
        assert is_named or row[0].startswith("host:"), row[0]


@pytest.mark.parametrize(("by", "number"), [(quoted(row[1])[0], row[2]) for row in BOUNDS])
def test_each_bound_is_the_codes(by: str, number: str) -> None:
    value, _, unit = number.partition(" ")
    assert _bound(by) == float(value) * _UNITS[unit]


def _bound(name: str) -> float:
    """A constant by its module, or else a setting's default."""
    if name.startswith("vdpad."):
        module, _, constant = name.rpartition(".")
        found: float = getattr(importlib.import_module(module), constant)
        return found
    at: object = Settings()
    for each in name.split("."):
        at = getattr(at, each)
    assert isinstance(at, int | float)
    return at
