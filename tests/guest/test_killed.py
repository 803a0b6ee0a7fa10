"""Either back end is killed while a guest with a network moves: it goes on, on one side.

QEMU comes back to a back end that was started anew, as a service is (`reconnect-ms`). Where it is
killed, datagrams may come twice: those that it had sent and not returned, and those that the bridge
sends to all places while it does not know the guest's.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import TRIXIE_BACKPORTS
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.namespaces import why_no_taps

from .machine import why_unavailable
from .network import Moving, moving

MOMENTS = 6
"""Of each back end; random, and the same in each run."""
TAKEN_OVER = 3


@pytest.fixture(scope="module")
def on_the_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    skip_or_fail(why_unavailable() or why_no_version(TRIXIE_BACKPORTS) or why_no_taps())
    folder = tmp_path_factory.mktemp("killed")
    with moving(folder, ("relay",), (TRIXIE_BACKPORTS, TRIXIE_BACKPORTS)) as made:
        yield made


@pytest.mark.parametrize("killed", ["source", "destination"])
def test_a_guest_goes_on_on_one_side(on_the_way: Moving, killed: str) -> None:
    random = Random(killed)
    on_the_way.move()
    longest = 1.2 * on_the_way.journey.moved[-1]["total-time"] / 1000
    arrived = []
    for _ in range(MOMENTS):
        after = random.uniform(0, longest)
        arrived.append((f"{after:.3f}", on_the_way.try_to_move(killed, after)))
        check(on_the_way)
    print(f"{killed} killed after so many seconds, and whether the guest has arrived: {arrived}")


def test_what_takes_over_at_the_source_marks_all_that_was_not(on_the_way: Moving) -> None:
    random = Random("taken over")
    for _ in range(TAKEN_OVER):
        assert on_the_way.try_to_move("source", random.uniform(0, 2), awaited=True)
        check(on_the_way)


def check(on_the_way: Moving) -> None:
    """The guest goes on, with what it had, and is nowhere else."""
    on_the_way.until_more()
    on_the_way.until_it_has_all()
    on_the_way.check_that_it_is_nowhere_else()
    assert on_the_way.journey.wrong_checksums() == 0
