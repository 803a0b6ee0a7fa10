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
#
# Where the guest has moved to it stands still at first, and all of its memory is held against what
# it was: most pages that the device writes the guest soon writes to itself, so that it alone would
# see few of those that were not marked.
#
# How much comes while memory is logged
#
# A *flood* is sent by another connection, whose receiver reads nothing before the guest has moved:
# it stays where the device has written it. It comes once all memory was sent. So that QEMU does not
# have the guest stand still before that, the guest *stirs* its memory meanwhile.
"""A Linux guest moves there and back, between back ends on software devices, by stock QEMUs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.availability import skip_or_fail
from tests.backend.process import BackEndProcess
from tests.qemu.comparison import different_pages
from tests.qemu.qmp import QmpError
from tests.qemu.states import multicast_macs, unicast_macs
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS, Version
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until
from tests.vhost_user.forgetful_log import FORGOTTEN

from .machine import Guest, awaited, booted, why_unavailable
from .vhost_user import DataQueues, on_back_end, started

KIND = "pc"
MOVES = 10
FAST, SLOW = 1 << 30, 4 << 20
"""Bytes a second of a migration."""
SETTINGS = (
    "ip link set eth0 allmulticast on",
    *(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in (5, 31, 4094)),
    *(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(3)),
    *(f"ip maddr add {mac} dev eth0" for mac in multicast_macs(20)),
    "ethtool -L eth0 combined 2",
)
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
FLOOD = 1 << 20
"""Bytes."""
PREPARE = (
    "echo 4096 4194304 4194304 > /proc/sys/net/ipv4/tcp_rmem",
    "echo 4096 4194304 4194304 > /proc/sys/net/ipv4/tcp_wmem",
    f"head -c {FLOOD} /dev/urandom > /tmp/flood",
    "head -c 4194304 /dev/urandom > /tmp/spoon",
)
AWAIT = "while [ ! -e /tmp/moved ]; do usleep 100000; done"
STIR = (
    "(while [ ! -e /tmp/still ]; do dd if=/tmp/spoon of=/tmp/cup bs=1M conv=notrunc 2>/dev/null; "
    "usleep 50000; done) &"
)
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
class Journey:
    """A guest that goes from one machine to the next; two back ends take turns."""

    back_ends: list[BackEndProcess] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    guest: Guest | None = None
    moved: list[dict[str, Any]] = field(default_factory=list)
    """What QEMU told of each migration."""

    @property
    def here(self) -> Guest:
        """The machine on which it is."""
        assert self.guest is not None
        return self.guest

    def begin(self, qemu: Version) -> None:
        """Boots the guest, sets it up, and has it exchange data."""
        card = DataQueues(self.back_ends[0].front_end)
        self.guest = self.stack.enter_context(booted([card], qemu=qemu, kind=KIND))
        self.here.run(*SETTINGS)
        self.here.run(*TRAFFIC)
        self.here.run(TALK)
        self.until_more(5)

    def move(self, qemu: Version) -> None:
        """To another machine; the one before ends."""
        with self._moving(qemu) as there:
            self.here.begin_to_move(there, max_bandwidth=FAST)
            self.moved.append(self.here.until_moved(there))
            assert different_pages(self.here.pid, there.pid) == []
            there.qmp("cont")

    def move_while_much_comes(self, qemu: Version) -> list[int]:
        """The same; the pages that were not sent as they should have been.

        Where there are any, who knows what the guest will do.
        """
        self.here.run(*PREPARE)
        self.here.run(STIR)
        with self._moving(qemu) as there:
            self.here.begin_to_move(there, max_bandwidth=FAST >> 6, downtime_limit=1)
            wait_until(self._all_was_sent_once, 60, said=self.here.printed)
            self.here.bound_migration(max_bandwidth=SLOW)
            self.here.run(POUR)
            wait_until(lambda: self.here.run(POURED) == "1\n", 60, said=self.here.printed)
            assert self.here.migration()["status"] == "active"
            self.here.run("touch /tmp/still")
            self.here.bound_migration(max_bandwidth=FAST, downtime_limit=300)
            self.moved.append(self.here.until_moved(there))
            different = different_pages(self.here.pid, there.pid)
            there.qmp("cont")
        return different

    def _all_was_sent_once(self) -> bool:
        told = self.here.migration()
        return bool(told["status"] == "active" and told["ram"]["dirty-sync-count"] > 1)

    @contextmanager
    def _moving(self, qemu: Version) -> Iterator[Guest]:
        at = (len(self.moved) + 1) % 2
        card = DataQueues(self.back_ends[at].front_end)
        with ExitStack() as stack:
            there = stack.enter_context(awaited([card], qemu=qemu, kind=KIND))
            yield there
            before, self.stack = self.stack, stack.pop_all()
        self.guest = there
        before.close()

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
        wait_until(lambda: self.blocks() >= before + number, 60, said=self.here.printed)

    def received(self) -> int:
        """Bytes that eth0 has received; by which way the blocks have come."""
        return int(self.here.run("cat /sys/class/net/eth0/statistics/rx_bytes"))

    def filter(self) -> Any:
        """The receive filter, as QEMU has it."""
        (found,) = self.here.qmp("query-rx-filter")
        return {
            name: sorted(each) if isinstance(each, list) else each for name, each in found.items()
        }

    def wrong_checksums(self) -> int:
        """Of TCP segments and IP packets that the guest has received."""
        told = self.here.run("cat /proc/net/snmp /proc/net/netstat")
        lines = [line.split() for line in told.splitlines()]
        found = dict[str, str]()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            found.update(zip((f"{names[0]}{name}" for name in names[1:]), values[1:], strict=True))
        return int(found["Tcp:InCsumErrors"]) + int(found["IpExt:InCsumErrors"])


@contextmanager
def begun(folder: Path, qemu: Version, way: str) -> Iterator[Journey]:
    """A guest that can move, for the time of the context; the way is logging_process.py's."""
    made = Journey()
    try:
        for name in ("one", "other"):
            (folder / name).mkdir()
            program = (sys.executable, "-m", "tests.backend.logging_process", way)
            made.back_ends.append(started(folder / name, program=program))
        made.begin(qemu)
        yield made
        for each in made.back_ends:
            assert "Traceback" not in each.log()
    finally:
        made.stack.close()
        for each in made.back_ends:
            each.stop()


@pytest.fixture(params=[TRIXIE, TRIXIE_BACKPORTS], ids=str)
def qemu(request: pytest.FixtureRequest) -> Version:
    """Each to itself, and not from 10.0 to 11.1, which takes no ring of 1024: 10.0 has no others,
    whatever the card."""
    found: Version = request.param
    skip_or_fail(why_unavailable() or why_no_version(found))
    return found


@pytest.mark.parametrize("way", ["relay", "everything"])
def test_a_guest_moves_there_and_back(tmp_path: Path, qemu: Version, way: str) -> None:
    with begun(tmp_path, qemu, way) as journey:
        before = journey.filter()
        for _ in range(MOVES):
            journey.move(qemu)
            journey.until_more(5)
            assert journey.filter() == before
        assert journey.wrong_checksums() == 0
        assert journey.received() >= 2 * BLOCK * journey.blocks()
        assert journey.ways() == {way}
        downtimes = [each["downtime"] for each in journey.moved]
        print(f"{way}: downtime in ms: {downtimes}; blocks each way: {journey.blocks()}")


def test_what_comes_while_memory_is_logged_is_there(tmp_path: Path, qemu: Version) -> None:
    with begun(tmp_path, qemu, "relay") as journey:
        assert journey.move_while_much_comes(qemu) == []
        assert journey.ways() == {"relay"}
        journey.here.run("touch /tmp/moved")
        compared = "cmp -s /tmp/flood /tmp/poured && echo whole || true"
        wait_until(lambda: journey.here.run(compared) == "whole\n", 60)
        journey.until_more(5)
        assert journey.wrong_checksums() == 0


def test_pages_that_are_not_marked_are_found(tmp_path: Path, qemu: Version) -> None:
    with begun(tmp_path, qemu, "forgetful") as journey:
        wrong = journey.move_while_much_comes(qemu)
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
        wait_until(lambda: on.guest.qmp("query-status")["status"] == "running", 60)
        on.check_loop()
        refused = [each["request"] for each in on.process.events("front-end-refused")]
        assert {"GET_VRING_BASE", "CHECK_DEVICE_STATE"} <= {*refused}
        assert other.events("state-loaded") == []
