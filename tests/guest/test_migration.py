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

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.availability import skip_or_fail
from tests.backend.process import BackEndProcess
from tests.qemu.states import multicast_macs, unicast_macs
from tests.qemu.versions import TRIXIE, TRIXIE_BACKPORTS, Version
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until

from .machine import Guest, awaited, booted, why_unavailable
from .vhost_user import DataQueues, started

KIND = "pc"
MOVES = 10
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

    folder: Path
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
        at = (len(self.moved) + 1) % 2
        card = DataQueues(self.back_ends[at].front_end)
        with ExitStack() as stack:
            there = stack.enter_context(awaited([card], qemu=qemu, kind=KIND))
            self.moved.append(self.here.move_to(there, max_bandwidth=1 << 30))
            before, self.stack = self.stack, stack.pop_all()
        self.guest = there
        before.close()

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


@pytest.fixture
def journey(tmp_path: Path) -> Iterator[Journey]:
    skip_or_fail(why_unavailable() or why_no_version(TRIXIE) or why_no_version(TRIXIE_BACKPORTS))
    made = Journey(tmp_path)
    try:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            made.back_ends.append(started(tmp_path / name))
        yield made
        for each in made.back_ends:
            assert "Traceback" not in each.log()
    finally:
        made.stack.close()
        for each in made.back_ends:
            each.stop()


@pytest.mark.parametrize("qemu", [TRIXIE, TRIXIE_BACKPORTS], ids=str)
def test_a_guest_moves_there_and_back(journey: Journey, qemu: Version) -> None:
    """Not from 10.0 to 11.1, which takes no ring of 1024: 10.0 has no others, whatever the card."""
    journey.begin(qemu)
    before = journey.filter()
    for _ in range(MOVES):
        journey.move(qemu)
        journey.until_more(5)
        assert journey.filter() == before
    assert journey.wrong_checksums() == 0
    assert journey.received() >= 2 * BLOCK * journey.blocks()
    downtimes = [each["downtime"] for each in journey.moved]
    print(f"downtime in ms: {downtimes}; blocks each way: {journey.blocks()}")
