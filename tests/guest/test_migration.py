# How a guest exchanges data with itself
#
# A software device gives back on a queue pair what was sent on it, so both ends of a connection are
# the guest's: two addresses of eth0, each reached over eth0 by a rule that comes before the table
# of local addresses. What comes in by eth0 is looked up in that table alone. So all segments of
# both directions go round by the device, and their checksums are the kernel's to look at: nothing
# says that somebody else did.
#
# A block is sent over and over, and each that comes is held against it; what differs is told, and
# so is the end of the connection.
"""A Linux guest moves there and back, between back ends on software devices, by stock QEMUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.backend.process import BackEndProcess
from tests.qemu.qmp import QmpError
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS, Version
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until
from tests.vhost_user.forgetful_log import FORGOTTEN

from .journey import LARGE_WINDOWS, Journey
from .machine import awaited, why_unavailable
from .vhost_user import DataQueues, on_back_end, started

KIND = "pc"
MOVES = 10
NEAR, FAR = "192.0.2.1", "192.0.2.2"
BLOCK = 20000
"""Bytes."""
TRAFFIC = (
    "echo 1 > /proc/sys/net/ipv4/conf/eth0/accept_local",
    f"ip address add {NEAR}/32 dev eth0",
    f"ip address add {FAR}/32 dev eth0",
    "ip rule add pref 1 iif eth0 lookup local",
    f"ip rule add pref 2 to {FAR} lookup 100",
    f"ip rule add pref 3 from {FAR} to {NEAR} lookup 100",
    "ip rule add pref 10 lookup local",
    "ip rule delete pref 0",
    f"ip route add {FAR} dev eth0 src {NEAR} table 100",
    f"ip route add {NEAR} dev eth0 src {FAR} table 100",
    f"ip neigh replace {FAR} lladdr $(cat /sys/class/net/eth0/address) dev eth0",
    f"ip neigh replace {NEAR} lladdr $(cat /sys/class/net/eth0/address) dev eth0",
    f"head -c {BLOCK} /dev/urandom > /tmp/block",
    ": > /tmp/good-near; : > /tmp/good-far; : > /tmp/bad",
)
FLOOD = 4 << 20
"""Bytes."""
PREPARE = (*LARGE_WINDOWS, f"head -c {FLOOD} /dev/urandom > /tmp/flood")
AWAIT = "while [ ! -e /tmp/moved ]; do usleep 100000; done"
POUR = (
    f"(sleep 600 | nc -l -p 5001 | ({AWAIT}; cat > /tmp/poured)) & sleep 1; "
    f"(nc {FAR} 5001 < /tmp/flood) &"
)
POURED = "grep -c ':1389 05 ' /proc/net/tcp || true"
"""1 once the receiver's end has acknowledged all of it: the sender's is in FIN_WAIT2."""
SENDER = "while cat /tmp/block; do usleep 100000; done"


def receiver(end: str) -> str:
    """That of one end of the connection."""
    come = f"/tmp/come-{end}"
    block = f"dd bs={BLOCK} count=1 iflag=fullblock of={come} 2>/dev/null && [ -s {come} ]"
    held = f"cmp -s {come} /tmp/block && echo >> /tmp/good-{end} || echo {end} >> /tmp/bad"
    return f"while {block}; do {held}; done; echo {end} ended >> /tmp/bad"


TALK = (
    f"(({SENDER}) | nc -l -p 5000 | ({receiver('far')})) & sleep 1; "
    f"(({SENDER}) | nc {FAR} 5000 | ({receiver('near')})) &"
)


@dataclass
class Talking(Journey):
    """A guest that talks to itself; two back ends take turns."""

    kind: str = KIND
    back_ends: list[BackEndProcess] = field(default_factory=list)

    def talk(self, qemu: Version) -> None:
        """Boots the guest, and has it exchange data."""
        self.begin(qemu, self.back_ends[0])
        self.here.run(*TRAFFIC)
        self.here.run(TALK)
        self.until_more(5)

    def next(self) -> BackEndProcess:
        """To which it goes."""
        return self.back_ends[(len(self.moved) + 1) % 2]

    def pour(self) -> None:
        """Has the flood come."""
        self.here.run(POUR)
        wait_until(lambda: self.here.run(POURED) == "1\n", said=self.here.printed)

    def ways(self) -> set[str]:
        """In which its memory was logged, over all its moves."""
        began = [event for each in self.back_ends for event in each.events("logging-began")]
        assert len(began) == len(self.moved)
        return {event["way"] for event in began}

    def blocks(self) -> int:
        """How many have come at either end, all of them good."""
        near, far, *bad = self.here.run(
            "wc -l < /tmp/good-near", "wc -l < /tmp/good-far", "cat /tmp/bad"
        ).split()
        assert bad == []
        return min(int(near), int(far))

    def until_more(self, number: int) -> None:
        """Returns when so many more have come."""
        before = self.blocks()
        wait_until(lambda: self.blocks() >= before + number, said=self.here.printed)

    def received(self) -> int:
        """Bytes that eth0 has received; by which way the blocks have come."""
        return int(self.here.run("cat /sys/class/net/eth0/statistics/rx_bytes"))


@contextmanager
def begun(folder: Path, qemu: Version, way: str) -> Iterator[Talking]:
    """A guest that can move, for the time of the context; the way is logging_process.py's."""
    made = Talking()
    try:
        for name in ("one", "other"):
            (folder / name).mkdir()
            program = (sys.executable, "-m", "tests.backend.logging_process", way)
            made.back_ends.append(started(folder / name, program=program))
        made.talk(qemu)
        yield made
        for each in made.back_ends:
            assert "Traceback" not in each.log()
    finally:
        made.close()
        for each in made.back_ends:
            each.stop()


@pytest.fixture(params=[TRIXIE, TRIXIE_BACKPORTS], ids=str)
def qemu(request: pytest.FixtureRequest) -> Version:
    """Each to itself, and not from 10.0 to 11.1, which takes no ring of 1024: 10.0 has no others,
    whatever the card."""
    found: Version = request.param
    skip_or_fail(why_unavailable() or why_no_version(found))
    return found


@pytest.mark.parametrize("way", ["relay", "restart", "everything"])
def test_a_guest_moves_there_and_back(tmp_path: Path, qemu: Version, way: str) -> None:
    told = "relay" if way == "restart" else way
    with begun(tmp_path, qemu, way) as journey:
        before = journey.filter()
        for _ in range(MOVES):
            journey.move(qemu, journey.next())
            journey.until_more(5)
            assert journey.filter() == before
        assert journey.wrong_checksums() == 0
        # The talk goes on between the two.
        blocks = journey.blocks()
        assert journey.received() >= 2 * BLOCK * blocks
        assert journey.ways() == {told}
        downtimes = [each["downtime"] for each in journey.moved]
        print(f"{way}: downtime in ms: {downtimes}; blocks each way: {blocks}")


def test_what_comes_while_memory_is_logged_is_there(tmp_path: Path, qemu: Version) -> None:
    with begun(tmp_path, qemu, "relay") as journey:
        journey.here.run(*PREPARE)
        assert journey.move_while_much_comes(qemu, journey.next(), journey.pour) == []
        assert journey.ways() == {"relay"}
        journey.here.run("touch /tmp/moved")
        compared = "cmp -s /tmp/flood /tmp/poured && echo whole || true"
        wait_until(lambda: journey.here.run(compared) == "whole\n")
        journey.until_more(5)
        assert journey.wrong_checksums() == 0


def test_pages_that_are_not_marked_are_found(tmp_path: Path, qemu: Version) -> None:
    with begun(tmp_path, qemu, "forgetful") as journey:
        journey.here.run(*PREPARE)
        wrong = journey.move_while_much_comes(qemu, journey.next(), journey.pour)
        assert wrong
        assert all(page % FORGOTTEN == 0 for page in wrong)


def test_a_guest_whose_device_tells_no_bases_stays(tmp_path: Path, qemu: Version) -> None:
    program = (sys.executable, "-m", "tests.backend.unsuspendable_process")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        on = stack.enter_context(on_back_end(tmp_path / "one", DataQueues, qemu, program=program))
        other = started(tmp_path / "other")
        stack.callback(other.stop)
        there = stack.enter_context(awaited([DataQueues(other.front_end)], qemu=qemu, kind=KIND))
        on.check_loop()
        on.guest.begin_to_move(there)
        with pytest.raises(QmpError, match="'status': 'failed'"):
            on.guest.until_moved(there)
        wait_until(lambda: on.guest.qmp("query-status")["status"] == "running")
        on.check_loop()
        refused = [each["request"] for each in on.process.events("front-end-refused")]
        assert {"GET_VRING_BASE", "CHECK_DEVICE_STATE"} <= {*refused}
        assert other.events("state-loaded") == []
