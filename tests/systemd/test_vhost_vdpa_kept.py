"""Devices that are kept while the daemon is not there, in systemd's descriptor store."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.vm.host import Json, migration, negotiated, vhost_vdpa
from tests.vm.journal import entries_until, events
from tests.vm.test_restore import NO_FILTER, assert_restored, state_for

from .service import Service

DESCRIPTORS = 5


@pytest.fixture
def service(with_drop_in: Service) -> Iterator[Service]:
    """The service with its devices, keeping none and as installed once the test is over."""
    yield with_drop_in
    for device in ("vp0", "sim0"):
        with_drop_in.daemon.reply("release", device=device)
    with_drop_in.as_installed()


def stored(service: Service) -> int:
    """How many descriptors systemd has."""
    return int(service.show("NFileDescriptorStore"))


# --- the daemon's ends that a device outlives; each returns once the next daemon answers ---


def restarted(service: Service) -> None:
    service.systemctl("restart", "vdpad.service")


def killed(service: Service) -> None:
    service.kill(signal.SIGKILL)
    service.daemon.result("info")


def stuck(service: Service) -> None:
    """Until the watchdog bites."""
    service.kill(signal.SIGSTOP)
    service.daemon.result("info")


def restarted_with_wrong_settings(service: Service) -> None:
    """systemd tries again until they are right."""
    service.drop_in("wrong", "novel = 1\n")
    assert service.sh("systemctl restart vdpad.service").code != 0
    assert service.show("SubState") in ("auto-restart", "start")
    service.drop_in("wrong", "")
    service.daemon.result("info")


ENDS = (restarted, killed, stuck, restarted_with_wrong_settings)


def test_a_restored_device_is_kept_until_it_is_released(service: Service) -> None:
    service.change(unit="WatchdogSec=4")
    daemon, vm = service.daemon, service.vm
    name, target = migration(), vhost_vdpa("vp0")
    state = state_for(daemon, "vp0", {"vlans": [42]})
    report = daemon.result("restore", migration=name, state=state, target=target)
    assert_restored(report, 1)
    before = vm.rx_filter(), negotiated(vm, "vp0")
    assert before[0].vlan_table == (42,)
    for end in ENDS:
        pid = service.pid
        end(service)
        assert service.pid not in (0, pid), end
        assert (vm.rx_filter(), negotiated(vm, "vp0")) == before, end
        assert daemon.result("status", migration=name)["report"] == report
        assert daemon.result("restore", migration=name, state=state, target=target) == report
        assert stored(service) == DESCRIPTORS
    other: Json = {"migration": migration(), "state": state, "target": target}
    refused = daemon.refused("restore", **other)
    assert (refused["kind"], refused["migration"]) == ("busy", name)
    assert daemon.result("check", state=state, target=target)["compatible"] is True
    assert vm.rx_filter() == before[0]

    assert daemon.result("release", device="vp0") == {}
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
    assert stored(service) == 0
    # The store has let go of it by then, so it can be had at once.
    assert_restored(daemon.result("restore", **other), 1)
    assert vm.rx_filter().vlan_table == (42,)
    assert_told(service, name, report)


def assert_told(service: Service, name: str, report: Json) -> None:
    """The whole story, by the one field that an operator has."""
    found = entries_until(service.vm, "device-released", f"VDPAD_MIGRATION={name}")
    assert events(found) == [
        *("device-kept", "prepared", "committing", "restored"),
        *("device-left", "device-still-kept"),  # the restart, of which the old daemon knew
        *("device-still-kept", "device-still-kept"),
        *("device-left", "device-still-kept", "device-released"),
    ]
    for each in found:
        assert each["VDPAD_DEVICE"] == ["vp0"]
        assert each["_SYSTEMD_UNIT"] == ["vdpad.service"]
    restored = found[3]
    assert restored["VDPAD_OUTCOME"] == ["restored"]
    assert restored["VDPAD_COMMIT_US"] == [str(report["commit_us"])]


def test_the_simulator_is_kept_too(service: Service) -> None:
    """Its ring is dead, as it goes by the addresses of the first daemon; nothing is sent to it."""
    daemon, vm = service.daemon, service.vm

    def restore(address: str) -> None:
        state, target = state_for(daemon, "sim0", {"mac": address}), vhost_vdpa("sim0")
        report = daemon.result("restore", migration=migration(), state=state, target=target)
        assert_restored(report, 1)

    def shown() -> Json:
        config: Json = json.loads(vm.output("vdpa", "-j", "dev", "config", "show", "sim0"))
        return config

    restore("52:54:00:00:00:21")
    before = shown()
    assert before["config"]["sim0"]["mac"] == "52:54:00:00:00:21"
    assert negotiated(vm, "sim0") is not None
    killed(service)
    assert shown() == before
    assert daemon.result("release", device="sim0") == {}
    assert negotiated(vm, "sim0") is None
    restore("52:54:00:00:00:22")
    assert shown()["config"]["sim0"]["mac"] == "52:54:00:00:00:22"


@pytest.mark.parametrize(("end", "state_then"), [(restarted, "cancelled"), (killed, "failed")])
def test_a_prepared_device_is_given_back_and_may_be_prepared_again(
    service: Service, end: Callable[[Service], None], state_then: str
) -> None:
    daemon, vm, name = service.daemon, service.vm, migration()
    state, target = state_for(daemon, "vp0", {"vlans": [7]}), vhost_vdpa("vp0")
    wish: Json = {"migration": name, "state": state, "target": target}
    daemon.result("prepare", **wish)
    assert negotiated(vm, "vp0") is not None
    end(service)
    assert negotiated(vm, "vp0") is None
    assert stored(service) == 0
    assert daemon.result("status", migration=name)["state"] == state_then
    assert daemon.refused("commit", migration=name)["kind"] == "no-such-migration"
    assert daemon.result("prepare", **wish)["state"] == "prepared"
    assert_restored(daemon.result("commit", migration=name), 1)
    assert vm.rx_filter().vlan_table == (7,)
