"""SIGKILL in a commit: what the next daemon says of it, and what the device holds."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, replace

from tests.qemu.qmp import RxFilter
from tests.vm.host import Json, migration, negotiated, vhost_vdpa
from tests.vm.journal import latest
from tests.vm.test_restore import (
    ALL_PARTS,
    COMMANDS,
    NO_FILTER,
    assert_restored,
    state_for,
)

from .service import SOCKET, Service

MOMENTS = 10
IN_THE_MIDDLE = 3
MAX_MOMENTS = 40

VLANS = 4094
BEFORE_VLANS = 2
"""The MAC address and the offloads, of which the filter shows the first only."""
IN_FLIGHT = 32
"""Two descriptors for each command, on a ring of 64."""


@dataclass(frozen=True)
class Reached:
    """How far a commit came by the next daemon's word, and by the device's."""

    state: str
    applied: int
    fewest: int
    most: int

    @property
    def in_the_middle(self) -> bool:
        return self.state == "failed" and 0 < self.applied < COMMANDS


def test_wherever_it_is_killed_it_says_how_far_it_came(with_drop_in: Service) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    longest = undisturbed(with_drop_in)
    reached: list[Reached] = []
    while len(reached) < MOMENTS or sum(each.in_the_middle for each in reached) < IN_THE_MIDDLE:
        assert len(reached) < MAX_MOMENTS, reached
        reached.append(killed_after(with_drop_in, draw.uniform(0, longest)))
        print(reached[-1])


def undisturbed(service: Service) -> float:
    """How many seconds a commit takes from its request to its answer."""
    name = prepared(service)
    took = commit(service, name, after=60.0)
    assert took is not None
    service.daemon.result("release", device="vp0")
    return took


def prepared(service: Service) -> str:
    name, daemon = migration(), service.daemon
    state = state_for(daemon, "vp0", ALL_PARTS.parts)
    daemon.result("prepare", migration=name, state=state, target=vhost_vdpa("vp0"))
    return name


def commit(service: Service, name: str, after: float) -> float | None:
    """The seconds that it took; None if the daemon was killed before it answered."""
    took: float | None = service.vm.ask(
        *("call_and_kill",),
        socket=SOCKET,
        method="commit",
        params={"migration": name},
        pid=service.pid,
        after=after,
    )
    return took


def killed_after(service: Service, seconds: float) -> Reached:
    """Kills the daemon so long after a commit was asked for, and judges all that is left."""
    daemon, vm = service.daemon, service.vm
    name = prepared(service)
    before = vm.rx_filter()
    if commit(service, name, after=seconds) is not None:
        service.kill(signal.SIGKILL)
    status = daemon.result("status", migration=name)
    shown = vm.rx_filter()
    fewest, most = commands_in(shown, before)
    report = status["report"]
    reached = Reached(status["state"], report["applied"], fewest, most)
    if status["state"] == "restored":
        assert_restored(report, COMMANDS)
        assert shown == replace(before, **ALL_PARTS.shown)
    else:
        assert (status["state"], report["outcome"]) == ("failed", "interrupted"), status
        assert reached.applied <= most, reached
        assert fewest <= reached.applied + IN_FLIGHT, reached
        assert_told(service, name, report)
    assert_can_be_had_anew(service, name, report)
    return reached


def commands_in(shown: RxFilter, before: RxFilter) -> tuple[int, int]:
    """How many commands the device has carried out, by its filter: at least, and at most."""
    if shown.vlan == NO_FILTER:
        return 0, 0  # it is the kernel's again, which has reset it
    count = len(shown.vlan_table)
    assert shown.vlan_table == tuple(range(1, count + 1))  # in the order that they were sent
    if count == VLANS:
        return BEFORE_VLANS + count, COMMANDS
    if count:
        return BEFORE_VLANS + count, BEFORE_VLANS + count
    return int(shown.main_mac != before.main_mac), BEFORE_VLANS


def assert_told(service: Service, name: str, report: Json) -> None:
    """In the journal too, with how far it is known to have come."""
    told = latest(service.vm, "interrupted", f"VDPAD_MIGRATION={name}")
    assert told["VDPAD_OUTCOME"] == ["interrupted"]
    assert told["VDPAD_APPLIED"] == [str(report["applied"])]
    begun = report["device_must_reset"]
    assert told["VDPAD_STAGE"] == ["committing" if begun else "prepared"]


def assert_can_be_had_anew(service: Service, name: str, report: Json) -> None:
    """The device is kept as it was left, or had been sent nothing and is the kernel's again."""
    daemon, vm = service.daemon, service.vm
    if negotiated(vm, "vp0") is None:
        assert report["applied"] == 0
    else:
        assert report["device_must_reset"] == (report["outcome"] == "interrupted")
        refused = daemon.refused("prepare", **other_wish(service))
        assert (refused["kind"], refused["migration"]) == ("busy", name)
        assert daemon.result("release", device="vp0") == {}
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
    assert_restored(daemon.result("restore", **other_wish(service)), 1)
    assert vm.rx_filter().vlan_table == (7,)
    assert daemon.result("release", device="vp0") == {}


def other_wish(service: Service) -> Json:
    state = state_for(service.daemon, "vp0", {"vlans": [7]})
    return {"migration": migration(), "state": state, "target": vhost_vdpa("vp0")}
