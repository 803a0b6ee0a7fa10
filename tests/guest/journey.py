# How a guest moves
#
# Where it has moved to it stands still at first, and all of its memory is held against what it was:
# most pages that the device writes the guest soon writes to itself, so that it alone would see few
# of those that were not marked.
#
# How much comes while memory is logged
#
# A *flood* comes once all memory was sent, to a receiver that reads nothing before the guest has
# moved: it stays where the device has written it. So that QEMU does not have the guest stand still
# before that, the guest *stirs* its memory meanwhile.
"""A guest that goes from one machine to the next, each a QEMU with a card of a back end's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.backend.process import BackEndProcess
from tests.qemu.comparison import different_pages
from tests.qemu.qmp import QmpError
from tests.qemu.states import multicast_macs, unicast_macs
from tests.qemu.versions import Version
from tests.support.waiting import wait_until

from .machine import Guest, awaited, booted
from .vhost_user import DataQueues

SETTINGS = (
    "ip link set eth0 allmulticast on",
    *(f"ip link add link eth0 name eth0.{vid} type vlan id {vid}" for vid in (5, 31, 4094)),
    *(f"bridge fdb add {mac} dev eth0" for mac in unicast_macs(3)),
    *(f"ip maddr add {mac} dev eth0" for mac in multicast_macs(20)),
    "ethtool -L eth0 combined 2",
)
FAST, SLOW = 1 << 30, 4 << 20
"""Bytes a second of a migration."""
RETURN_PATH = {"capability": "return-path", "state": True}
"""By which a source hears whether its guest has come."""
MONITOR = "qmp"
"""In a back end's folder: where QEMU tells it what it keeps."""
STILL = "/tmp/still"
"""Once it is there, the guest stirs its memory no more."""
LARGE_WINDOWS = tuple(
    f"echo 4096 16777216 16777216 > /proc/sys/net/ipv4/tcp_{each}" for each in ("rmem", "wmem")
)
"""Of connections that begin afterwards."""
STIR = (
    f"rm -f {STILL}",
    "head -c 4194304 /dev/urandom > /tmp/spoon",
    f"(while [ ! -e {STILL} ]; do dd if=/tmp/spoon of=/tmp/cup bs=1M conv=notrunc 2>/dev/null; "
    "usleep 50000; done) &",
)


@dataclass
class Journey:
    """A guest on its way."""

    kind: str
    """Of all machines."""
    monitored: bool = False
    """Whether QEMU's monitor tells each back end what QEMU keeps."""
    guest: Guest | None = None
    moved: list[dict[str, Any]] = field(default_factory=list)
    """What QEMU told of each migration."""
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def here(self) -> Guest:
        """The machine on which it is."""
        assert self.guest is not None
        return self.guest

    def begin(self, qemu: Version, at: BackEndProcess) -> None:
        """Boots the guest, and sets it up."""
        machine = booted([self._card(at)], qemu=qemu, kind=self.kind)
        self.guest = self._stack.enter_context(machine)
        self.here.run(*SETTINGS)

    def move(self, qemu: Version, to: BackEndProcess, *, compared: bool = True) -> None:
        """To another machine; the one before ends.

        Args:
            qemu, to: the machine, and the back end of its card.
            compared: whether it stands still there until all its memory was found to be the same.
        """
        with self._moving(qemu, to) as there:
            self.here.begin_to_move(there, max_bandwidth=FAST)
            self.moved.append(self.here.until_moved(there))
            assert not compared or different_pages(self.here.pid, there.pid) == []
            there.qmp("cont")

    def move_while_much_comes(
        self, qemu: Version, to: BackEndProcess, pour: Callable[[], None]
    ) -> list[int]:
        """The same; the pages that were not sent as they should have been.

        Where there are any, who knows what the guest will do.

        Args:
            qemu, to: as of `move`.
            pour: has the flood come, and returns when all of it has.
        """
        self.here.run(*STIR)
        with self._moving(qemu, to) as there:
            self.here.begin_to_move(there, max_bandwidth=FAST >> 6, downtime_limit=1)
            wait_until(self._all_was_sent_once, said=self.here.printed)
            self.here.bound_migration(max_bandwidth=SLOW)
            pour()
            assert self.here.migration()["status"] == "active"
            self.here.run(f"touch {STILL}")
            self.here.bound_migration(max_bandwidth=FAST, downtime_limit=300)
            self.moved.append(self.here.until_moved(there))
            different = different_pages(self.here.pid, there.pid)
            there.qmp("cont")
        return different

    def try_to_move(
        self, qemu: Version, to: BackEndProcess, disturb: Callable[[], None], *, slow: bool = False
    ) -> bool:
        """Whether it has moved, in spite of something; if not, it goes on where it is.

        Args:
            qemu, to: as of `move`.
            disturb: has something happen at some time of the migration.
            slow: whether it cannot come to its end before that has happened.
        """
        try:
            with self._moving(qemu, to) as there:
                for each in (self.here, there):
                    each.qmp("migrate-set-capabilities", capabilities=[RETURN_PATH])
                self.here.begin_to_move(there, max_bandwidth=SLOW if slow else FAST)
                disturb()
                self.here.bound_migration(max_bandwidth=FAST)
                self.moved.append(self.here.until_moved(there))
                assert different_pages(self.here.pid, there.pid) == []
                there.qmp("cont")
        except QmpError:
            wait_until(self._runs, said=self.here.printed)
            return False
        return True

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

    def close(self) -> None:
        """Ends the machine that it is on."""
        self._stack.close()

    def _all_was_sent_once(self) -> bool:
        told = self.here.migration()
        return bool(told["status"] == "active" and told["ram"]["dirty-sync-count"] > 1)

    def _runs(self) -> bool:
        return bool(self.here.qmp("query-status")["status"] == "running")

    @contextmanager
    def _moving(self, qemu: Version, to: BackEndProcess) -> Iterator[Guest]:
        with ExitStack() as stack:
            card = self._card(to)
            there = stack.enter_context(awaited([card], qemu=qemu, kind=self.kind))
            yield there
            before, self._stack = self._stack, stack.pop_all()
        self.guest = there
        before.close()

    def _card(self, on: BackEndProcess) -> DataQueues:
        monitor = on.folder / MONITOR if self.monitored else None
        return DataQueues(on.front_end, monitor=monitor)
