# The guest's network
#
# A namespace of the test's own has a bridge, br0, which is the guest's switch. Its ports are TAP
# interfaces, each of a back end with a software device: a *place* where the guest can be. The
# guest's partner is at the bridge itself. So a frame for the guest reaches it only where the bridge
# takes it for; it learns that from frames that the guest sends.
"""A guest that moves from place to place on a network, and its partner there."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.backend.process import BackEndProcess
from tests.qemu.versions import Version
from tests.support.namespaces import Namespace, bridged_taps, wait_until_up
from tests.support.waiting import wait_until

from .journey import LARGE_WINDOWS, MONITOR, Journey
from .machine import Guest
from .partner import ECHO_PORT, OWN_PORT, POUR_PORT, Partner, Told, partner
from .said import Said, said_of
from .vhost_user import started

T = TypeVar("T")

KIND = "pc-q35-10.0"
"""A machine that both QEMUs have."""
GUEST, PARTNER = "192.0.2.1", "192.0.2.2"
MAC = "52:54:00:12:34:56"
"""Of QEMU's first card."""
CONNECTIONS = 3
"""Two of the partner's making, and one of the guest's."""
LATER = (
    "echo '#!/bin/sh' > /tmp/later",
    "echo 'until [ -e /tmp/moved ]; do usleep 100000; done; exec cat' >> /tmp/later",
    "chmod +x /tmp/later",
)
"""What echoes once the guest has moved."""


class Place:
    """A back end where the guest can be."""

    def __init__(self, folder: Path, tap: str, way: str, within: Namespace) -> None:
        """Begins its back end.

        Args:
            folder: of all places.
            tap: the interface by which it is at the bridge, and its name.
            way: in which a guest's memory is logged here, as of logging_process.py.
            within: where the bridge is.
        """
        self.tap = tap
        self.way = way
        self._folder = folder / tap
        self._within = within
        self._folder.mkdir()
        self.back_end = self._started()

    def begin_anew(self) -> None:
        """Kills the back end, and another one takes its place."""
        self.back_end.kill()
        self.check()
        self.back_end = self._started()

    def asked(self, method: str) -> Any:
        """What its back end answers."""
        return asyncio.run(self.back_end.ask(method))

    def check(self) -> None:
        """Its back end has not failed in any way that nobody foresaw."""
        assert "Traceback" not in self.back_end.log()

    def close(self) -> None:
        """Ends the back end."""
        self.back_end.stop()

    def _started(self) -> BackEndProcess:
        program = (sys.executable, "-m", "tests.backend.logging_process", self.way)
        more = {"software": f"tap:{self.tap}", "within": self._within, "program": program}
        return started(self._folder, "--qmp", str(self._folder / MONITOR), **more)


@dataclass(frozen=True)
class Has:
    """What a guest has set, by all that know of it."""

    vmm: Any
    back_end: Any
    guest: Said


class Moving:
    """A guest that moves between two places for each way of logging, and two QEMUs."""

    def __init__(
        self,
        partner: Partner,
        within: Namespace,
        places: Sequence[Place],
        qemus: tuple[Version, Version],
    ) -> None:
        """
        Args:
            partner: the guest's.
            within: where its network is.
            places: two for each way of logging; it begins at the first.
            qemus: that it is on by turns.
        """
        self.journey = Journey(KIND, monitored=True)
        self.partner = partner
        self._within = within
        self._places = places
        self._qemus = qemus
        self._at = places[0]
        self._had: Has | None = None

    @property
    def guest(self) -> Guest:
        """Where it is."""
        return self.journey.here

    def begin(self) -> None:
        """Boots the guest, and has it exchange data."""
        self.journey.begin(self._qemus[0], self._at.back_end)
        self.guest.run(f"ip address add {GUEST}/24 dev eth0", *LARGE_WINDOWS, *LATER)
        self.guest.run(f"(nc -ll -p {ECHO_PORT} -e cat) &")
        self.guest.run(f"(nc -l -p {POUR_PORT} -e /tmp/later) &")
        self.partner.begin()
        self.guest.run(f"(nc {PARTNER} {OWN_PORT} -e cat) &")
        wait_until(lambda: len(self.partner.tell().blocks) == CONNECTIONS, every=0.1)
        self.until_more()
        self._had = self._has()

    def leave_from(self, way: str) -> None:
        """Has it be where its memory is logged in this way."""
        if self._at.way != way:
            first = next(each for each in self._places if each.way == way)
            self._arrive(first, self.journey.move)

    def move(self, *, compared: bool = True) -> None:
        """To the other place of the same way; as of Journey."""
        self._arrive(self._other(), partial(self.journey.move, compared=compared))

    def move_while_much_comes(self) -> list[int]:
        """The same, with a flood on its way; as of Journey."""
        return self._arrive(
            self._other(),
            partial(self.journey.move_while_much_comes, pour=self.partner.pour),
        )

    def try_to_move(self, killed: str, after: float, *, awaited: bool = False) -> bool:
        """The same, while a back end is killed; whether the guest has moved.

        Args:
            killed: "source" or "destination".
            after: seconds from the migration's begin.
            awaited: whether nothing ends before another back end logs in its place.
        """
        there = self._other()
        place = self._at if killed == "source" else there

        def kill() -> None:
            time.sleep(after)
            place.begin_anew()
            if awaited:
                wait_until(lambda: place.asked("status")["logging"], every=0.05, said=self._told)

        qemu = self._next_qemu()
        has_moved = self.journey.try_to_move(qemu, there.back_end, kill, slow=awaited)
        if has_moved:
            self._at = there
        return has_moved

    def way(self) -> str:
        """In which its memory was logged that last left this place's neighbour."""
        return str(self._other().back_end.events("logging-began")[-1]["way"])

    def until_more(self, number: int = 3) -> None:
        """Returns when so many more blocks have come on each connection; nothing was wrong."""
        before = self.partner.tell()
        wait_until(lambda: self._have_come(before, number), every=0.1, said=self._told)

    def until_announced(self, before: int) -> int:
        """Returns how many announcements there are when there are more than so many."""
        wait_until(lambda: self.partner.tell().announcements > before, every=0.05, said=self._told)
        return self.partner.tell().announcements

    def until_learned(self) -> None:
        """Returns when the bridge knows the way to the guest."""
        wait_until(lambda: self.learned() == self._at.tap, every=0.05, said=self._told)

    def learned(self) -> str:
        """The interface by which the bridge would reach the guest; none where it does not know."""
        known = self._within.run("bridge", "fdb", "show", "br", "br0").stdout
        found = re.search(rf"^{MAC} dev (\w+) ", known, re.M)
        return "" if found is None else found[1]

    def until_it_has_all(self) -> None:
        """Returns when it has what it had at first: after a move it comes to be known by parts."""
        wait_until(lambda: self._has() == self._had, every=0.1, said=self._differing)

    def check_that_it_is_nowhere_else(self) -> None:
        """Its place's neighbour does not claim to have it."""
        other = self._other()
        assert other.asked("capture")["running"] is False
        assert other.asked("status")["phase"] in ("connected", "stopped", "waiting")

    def _has(self) -> Has:
        wait_until(lambda: self._captured()["missing"] == [], every=0.1, said=self._told)
        return Has(self.journey.filter(), self._captured()["state"], said_of(self.guest, "eth0"))

    def _differing(self) -> str:
        return f"{self._had}\n{self._has()}"

    def _captured(self) -> Any:
        return self._at.asked("capture")

    def _arrive(self, place: Place, move: Callable[[Version, BackEndProcess], T]) -> T:
        result = move(self._next_qemu(), place.back_end)
        self._at = place
        return result

    def _next_qemu(self) -> Version:
        return self._qemus[(len(self.journey.moved) + 1) % 2]

    def _other(self) -> Place:
        (other,) = (
            each for each in self._places if each.way == self._at.way and each is not self._at
        )
        return other

    def _have_come(self, before: Told, number: int) -> bool:
        now = self.partner.tell()
        assert now.faults == [], now.faults
        least = min(b - a for a, b in zip(before.blocks, now.blocks, strict=True))
        return least >= number

    def _told(self) -> str:
        return f"{self.partner.tell()}\n{self._at.back_end.log()}\n{self.guest.printed()}"


@contextmanager
def moving(folder: Path, ways: Sequence[str], qemus: tuple[Version, Version]) -> Iterator[Moving]:
    """A guest that is set up and exchanges data, for the time of the context.

    Args:
        folder: of the back ends.
        ways: in which its memory can be logged, as of logging_process.py; it begins by the first.
        qemus: as of Moving.
    """
    taps = [f"tap{at}" for at in range(2 * len(ways))]
    with ExitStack() as stack:
        within = stack.enter_context(bridged_taps(*taps))
        within.must("ip", "address", "add", f"{PARTNER}/24", "dev", "br0")
        allowed = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"
        within.must("sh", "-c", allowed)
        places = []
        for at, tap in enumerate(taps):
            places.append(Place(folder, tap, ways[at // 2], within))
            stack.callback(places[-1].close)
        wait_until_up(within, *taps, "br0")
        other_end = stack.enter_context(partner(within, GUEST, MAC, "br0"))
        made = Moving(other_end, within, places, qemus)
        stack.callback(made.journey.close)
        made.begin()
        yield made
        for each in places:
            each.check()
