"""A Linux guest with a partner on its network moves there and back, by stock QEMUs.

It is set up by ip, bridge and ethtool, and exchanges data with its partner all the time. Its back
ends are on software devices with TAP interfaces, which a bridge joins (network.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS, Version
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.namespaces import why_no_taps
from tests.vhost_user.forgetful_log import FORGOTTEN

from .machine import why_unavailable
from .network import Moving, moving
from .partner import Gaps

MOVES = 10
BETWEEN = {
    "10.0": (TRIXIE, TRIXIE),
    "11.1": (TRIXIE_BACKPORTS, TRIXIE_BACKPORTS),
    "11.1-and-10.0": (TRIXIE_BACKPORTS, TRIXIE),
}
"""The QEMUs that a guest is on by turns. It begins on 11.1 where it is on both, as 11.1 takes no
ring of 1024, and 10.0 gives a guest that begins there no others."""


def _skip_without(*qemus: Version) -> None:
    without = next(filter(None, map(why_no_version, qemus)), None)
    skip_or_fail(why_unavailable() or without or why_no_taps())


@pytest.fixture(scope="module", params=BETWEEN)
def on_the_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moving]:
    qemus = BETWEEN[request.param]
    _skip_without(*qemus)
    folder = tmp_path_factory.mktemp("moving")
    with moving(folder, ("relay", "everything"), qemus) as made:
        yield made


@pytest.mark.parametrize("way", ["relay", "everything"])
def test_a_guest_moves_there_and_back(on_the_way: Moving, way: str) -> None:
    on_the_way.leave_from(way)
    announced = on_the_way.partner.tell().announcements
    gaps = []
    for number in range(MOVES):
        on_the_way.partner.gaps()
        # What stands still to be compared says nothing of how long a move takes.
        compared = number % 2 == 0
        on_the_way.move(compared=compared)
        on_the_way.until_more()
        gaps += [] if compared else [on_the_way.partner.gaps()]
        announced = on_the_way.until_announced(announced)
        assert on_the_way.way() == way
        on_the_way.until_it_has_all()
    assert on_the_way.journey.wrong_checksums() == 0
    assert on_the_way.partner.tell().doubled == 0
    report(way, on_the_way, gaps)


def report(way: str, moved: Moving, gaps: Sequence[Gaps]) -> None:
    """Prints what docs/migration.md has numbers of."""
    told = moved.partner.tell()
    print(f"{way}: blocks there and back on each connection: {told.blocks}")
    print(f"{way}: {told.lost} of {told.datagrams} datagrams lost")
    print(f"{way}: longest gaps in ms: {gaps}")
    print(f"{way}: downtimes in ms: {[each['downtime'] for each in moved.journey.moved[-MOVES:]]}")


def test_the_switch_learns_the_way_from_a_guest_that_has_nothing_to_say(on_the_way: Moving) -> None:
    on_the_way.partner.be_silent()
    on_the_way.until_learned()
    on_the_way.move()
    on_the_way.until_learned()
    on_the_way.partner.go_on()
    on_the_way.until_more()


def test_what_comes_while_memory_is_logged_is_there(on_the_way: Moving) -> None:
    on_the_way.leave_from("relay")
    assert on_the_way.move_while_much_comes() == []
    assert on_the_way.way() == "relay"
    on_the_way.guest.run("touch /tmp/moved")
    assert on_the_way.partner.came_whole()
    on_the_way.until_more()
    assert on_the_way.journey.wrong_checksums() == 0


def test_pages_that_are_not_marked_are_found(tmp_path: Path) -> None:
    qemus = BETWEEN["11.1"]
    _skip_without(*qemus)
    with moving(tmp_path, ("forgetful",), qemus) as made:
        wrong = made.move_while_much_comes()
        assert wrong
        assert all(page % FORGOTTEN == 0 for page in wrong)
        made.guest.run("touch /tmp/moved")
        assert not made.partner.came_whole()
