"""Fixtures: that nothing is left of what a front end gave."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left


def mappings() -> list[str]:
    """All that this process has mapped of a front end's memory."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if "front-end-memory" in line]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Neither descriptors nor mappings."""
    before = mappings()
    with no_descriptor_left():
        yield
    assert mappings() == before
