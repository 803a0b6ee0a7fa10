"""Devices that are kept while the daemon is restarted, and what became of its operations."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import pytest

from .host import Daemon, Json, migration, negotiated, unused, vhost_vdpa
from .machine import Machine
from .test_restore import ALL_PARTS, NO_FILTER, assert_restored, state_for

PATIENCE = 30.0
TRIES = 20
DEAD_SECONDS = 5.0
IN_FLIGHT = 32
DESCRIPTORS = 5


class Managed(Daemon):
    """A daemon with a manager, whose pid it has."""

    def restart(self, number: signal.Signals) -> None:
        """Ends the daemon by SIGUSR1 (SIGTERM) or SIGUSR2 (SIGKILL); the next one answers then."""
        starts = len(self.starts())
        self.vm.ask("kill", pid=self.pid, number=number)
        until = time.monotonic() + PATIENCE
        while len(self.starts()) == starts:
            assert time.monotonic() < until, self.log_text()
            time.sleep(0.1)

    def log_text(self) -> str:
        text: str = self.vm.ask("read", path=self.log)
        return text

    def starts(self) -> list[str]:
        """One line for each daemon that came to listen."""
        return [line for line in self.log_text().splitlines() if '"listening"' in line]

    def stored(self) -> int:
        """How many descriptors the manager has, once it has been told to drop some."""
        (*_, last) = (line for line in self.log_text().splitlines() if line.startswith("stored: "))
        return int(last.removeprefix("stored: "))


@pytest.fixture(scope="module")
def managed_daemon(vm: Machine) -> Iterator[Managed]:
    name = unused("managed")
    config, log, path = f"{name}.toml", f"{name}.log", f"{name}.sock"
    vm.ask("write", path=config, text=f'socket = "{path}"\n[records]\ndirectory = "{name}.d"\n')
    pid = vm.ask("spawn", argv=[sys.executable, "-m", "tests.vm.manager", config], stderr=log)
    vm.ask("wait_for", path=log, text='"listening"')
    daemon = Managed(vm, pid, path, log)
    yield daemon
    daemon.terminate()
    assert "Traceback" not in daemon.log_text(), daemon.log_text()


@pytest.fixture
def daemon(managed_daemon: Managed) -> Iterator[Managed]:
    yield managed_daemon
    for device in ("vp0", "sim0"):
        managed_daemon.reply("release", device=device)


def test_a_restored_device_is_kept_until_it_is_released(vm: Machine, daemon: Managed) -> None:
    name, target = migration(), vhost_vdpa("vp0")
    state = state_for(daemon, "vp0", {"vlans": [42]})
    report = daemon.result("restore", migration=name, state=state, target=target)
    assert_restored(report, 1)
    before = vm.rx_filter(), negotiated(vm, "vp0")
    assert before[0].vlan_table == (42,)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        daemon.restart(number)
        assert (vm.rx_filter(), negotiated(vm, "vp0")) == before
        assert daemon.result("status", migration=name)["report"] == report
        assert daemon.result("restore", migration=name, state=state, target=target) == report
    other: Json = {"migration": migration(), "state": state, "target": target}
    refused = daemon.refused("restore", **other)
    assert (refused["kind"], refused["migration"]) == ("busy", name)
    assert daemon.result("check", state=state, target=target)["compatible"] is True
    assert vm.rx_filter() == before[0]

    assert daemon.result("release", device="vp0") == {}
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
    assert daemon.stored() == 0
    # The store has let go of it by then, so it can be had at once.
    assert_restored(daemon.result("restore", **other), 1)
    assert vm.rx_filter().vlan_table == (42,)


def test_the_simulator_is_kept_too(vm: Machine, daemon: Managed) -> None:
    """Its ring is dead, as it goes by the addresses of the first daemon; nothing is sent to it."""
    name, target = migration(), vhost_vdpa("sim0")
    state = state_for(daemon, "sim0", {"mac": "52:54:00:00:00:21"})
    assert_restored(daemon.result("restore", migration=name, state=state, target=target), 1)
    daemon.restart(signal.SIGUSR2)
    assert negotiated(vm, "sim0") is not None
    assert "52:54:00:00:00:21" in vm.output("vdpa", "dev", "config", "show", "sim0")
    assert daemon.result("release", device="sim0") == {}
    assert negotiated(vm, "sim0") is None
    other = state_for(daemon, "sim0", {"mac": "52:54:00:00:00:22"})
    again: Json = {"migration": migration(), "state": other, "target": target}
    assert_restored(daemon.result("restore", **again), 1)
    assert "52:54:00:00:00:22" in vm.output("vdpa", "dev", "config", "show", "sim0")


@pytest.mark.parametrize(
    ("number", "state_then"), [(signal.SIGUSR1, "cancelled"), (signal.SIGUSR2, "failed")]
)
def test_a_prepared_device_is_given_back_and_may_be_prepared_again(
    vm: Machine, daemon: Managed, number: signal.Signals, state_then: str
) -> None:
    wish: Json = {
        "migration": migration(),
        "state": state_for(daemon, "vp0", {"vlans": [7]}),
        "target": vhost_vdpa("vp0"),
    }
    daemon.result("prepare", **wish)
    assert negotiated(vm, "vp0") is not None
    daemon.restart(number)
    assert negotiated(vm, "vp0") is None
    assert daemon.stored() == 0
    assert daemon.result("status", migration=wish["migration"])["state"] == state_then
    refused = daemon.refused("commit", migration=wish["migration"])
    assert refused["kind"] == "no-such-migration"
    assert daemon.result("prepare", **wish)["state"] == "prepared"
    assert_restored(daemon.result("commit", migration=wish["migration"]), 1)
    assert vm.rx_filter().vlan_table == (7,)


def test_a_commit_that_was_killed_says_how_far_it_came(vm: Machine, daemon: Managed) -> None:
    reached: list[int] = []
    for _ in range(TRIES):
        name = migration()
        wish: Json = {
            "migration": name,
            "state": state_for(daemon, "vp0", ALL_PARTS.parts),
            "target": vhost_vdpa("vp0"),
        }
        daemon.result("prepare", **wish)
        commit = vm.begin(
            *("call",),
            socket=daemon.socket,
            method="commit",
            params={"migration": name},
            seconds=DEAD_SECONDS,
        )
        while not vm.rx_filter().vlan_table:
            pass
        daemon.restart(signal.SIGUSR2)
        reached.append(len(vm.rx_filter().vlan_table))
        vm.finish(commit)
        if 0 < reached[-1] < 4094:
            break
        daemon.result("release", device="vp0")
    assert 0 < reached[-1] < 4094, reached
    status = daemon.result("status", migration=name)
    report = status["report"]
    assert (status["state"], report["outcome"]) == ("failed", "interrupted")
    assert report["device_must_reset"] is True
    # The MAC, the offloads and such come before the VLANs; what was published the device has done.
    ahead = report["applied"] - 2
    assert ahead <= reached[-1] <= ahead + IN_FLIGHT, report
    # It is as it was left: not reset, and nobody else's.
    assert len(vm.rx_filter().vlan_table) == reached[-1]
    assert negotiated(vm, "vp0") is not None
    again = daemon.refused("restore", **wish)
    assert (again["kind"], again["report"]) == ("internal", report)
    assert "reset the device" in again["message"]
    assert daemon.result("release", device="vp0") == {}
    assert vm.rx_filter().vlan == NO_FILTER
    assert_restored(daemon.result("restore", **{**wish, "migration": migration()}))
    assert len(vm.rx_filter().vlan_table) == 4094


def test_without_the_store_nothing_is_left(vm: Machine) -> None:
    """The manager ends, and its copies with it."""
    name = unused("managed")
    config, log, path = f"{name}.toml", f"{name}.log", f"{name}.sock"
    vm.ask("write", path=config, text=f'socket = "{path}"\n')
    pid = vm.ask("spawn", argv=[sys.executable, "-m", "tests.vm.manager", config], stderr=log)
    vm.ask("wait_for", path=log, text='"listening"')
    daemon = Managed(vm, pid, path, log)
    state = state_for(daemon, "vp0", {"vlans": [9]})
    target = vhost_vdpa("vp0")
    daemon.result("restore", migration=migration(), state=state, target=target)
    assert vm.rx_filter().vlan_table == (9,)
    daemon.terminate()
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
