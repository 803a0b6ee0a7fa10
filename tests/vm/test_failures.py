"""What goes wrong on a host: devices that are busy, removed or refused, and a daemon that dies."""

from __future__ import annotations

import signal

from tests.support.waiting import wait_until

from .host import Caller, Json, holding, migration, negotiated, start, vhost_vdpa
from .machine import Machine
from .test_restore import ALL_PARTS, NO_FILTER, assert_restored, state_for

LITTLE_MEMORY = 64 * 1024
TRIES = 20
DEAD_SECONDS = 5.0
"""How long to wait for a reply that the dead will not give."""


def restore(daemon: Caller, device: str, parts: Json) -> Json:
    """The reply to a restore of these parts."""
    return daemon.reply(
        *("restore",),
        migration=migration(),
        state=state_for(daemon, device, parts),
        target=vhost_vdpa(device),
    )


def devices_at_last(daemon: Caller) -> list[Json]:
    """The devices, once the kernel has let go of whoever asked it before."""
    found: list[Json] = []

    def told() -> bool:
        reply = daemon.reply("devices")
        found[:] = reply.get("result", [])
        assert found or reply["refused"]["kind"] == "busy"
        return bool(found)

    wait_until(told)
    return found


def test_a_device_that_another_process_has(vm: Machine, daemon: Caller) -> None:
    state = state_for(daemon, "vp0", {"vlans": [1]})
    name, target = migration(), vhost_vdpa("vp0")
    with holding(vm, "/dev/vhost-vdpa-0") as pid:
        refused = daemon.refused("prepare", migration=name, state=state, target=target)
        assert refused["kind"] == "busy"
        assert refused["holders"][0]["pid"] == pid
        assert f"(pid {pid})" in refused["message"]
    # Nothing was recorded, so the same name may try again.
    assert daemon.result("prepare", migration=name, state=state, target=target)["commands"] == 1


def test_a_device_that_another_migration_has(vm: Machine, daemon: Caller) -> None:
    state, target = state_for(daemon, "vp0", {"vlans": [1]}), vhost_vdpa("vp0")
    name = migration()
    daemon.result("prepare", migration=name, state=state, target=target)
    refused = daemon.refused("prepare", migration=migration(), state=state, target=target)
    assert (refused["kind"], refused["migration"]) == ("busy", name)
    assert_restored(daemon.result("commit", migration=name), 1)


def test_two_prepares_at_once(vm: Machine, daemon: Caller) -> None:
    """One of them gets the device; the same one twice gets one record."""
    state, target = state_for(daemon, "vp0", {"vlans": [1]}), vhost_vdpa("vp0")
    name = migration()
    numbers = [
        daemon.begin("prepare", migration=each, state=state, target=target)
        for each in (name, name, migration())
    ]
    first, second, other = map(vm.finish, numbers)
    assert first["result"] == second["result"]
    assert other["refused"]["kind"] == "busy"


def test_a_limit_on_locked_memory_that_is_too_small(vm: Machine) -> None:
    daemon = start(vm, memlock=LITTLE_MEMORY)
    try:
        refused = restore(daemon, "vp0", {"vlans": [1]})["refused"]
        assert refused["kind"] == "not-allowed"
        assert f"{LITTLE_MEMORY} (RLIMIT_MEMLOCK)" in refused["message"]
        assert "LimitMEMLOCK" in refused["message"]
        assert negotiated(vm, "vp0") is None
        # vdpa_sim goes by virtual addresses and locks nothing.
        assert_restored(restore(daemon, "sim0", {"mac": "52:54:00:00:00:09"})["result"], 1)
    finally:
        daemon.terminate()


def test_a_device_that_is_removed_while_it_is_kept(vm: Machine, daemon: Caller) -> None:
    """The kernel waits until it is closed, and every netlink request with it; nobody else does."""
    assert_restored(restore(daemon, "sim0", {"mac": "52:54:00:00:00:09"})["result"], 1)
    removal = vm.begin("run", argv=["vdpa", "dev", "del", "sim0"])
    vm.ask("wait_until_gone", path="/dev/vhost-vdpa-1")
    refused = daemon.refused("devices")
    assert refused["kind"] == "busy"
    assert "removing" in refused["message"]
    assert daemon.result("info")["name"] == "vdpad"
    sample = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [9]}
    report = daemon.result("restore", migration=migration(), state=sample, target=vhost_vdpa("vp0"))
    assert_restored(report, 1)
    assert vm.rx_filter().vlan_table == (9,)

    assert daemon.result("release", device="sim0") == {}
    assert vm.finish(removal)["code"] == 0
    assert [each["name"] for each in devices_at_last(daemon)] == ["vp0"]
    add = ("vdpa", "dev", "add", "name", "sim0", "mgmtdev", "vdpasim_net")
    vm.output(*add, "mac", "52:54:00:00:00:01")
    assert_restored(restore(daemon, "sim0", {"mac": "52:54:00:00:00:0b"})["result"], 1)


def test_sigkill_in_the_middle_of_a_commit(vm: Machine) -> None:
    """The kernel takes the device back and resets it; a fresh daemon finds it as good as new."""
    daemon = start(vm)
    reached: list[int] = []
    for _ in range(TRIES):
        name = migration()
        state = state_for(daemon, "vp0", ALL_PARTS.parts)
        daemon.result("prepare", migration=name, state=state, target=vhost_vdpa("vp0"))
        commit = vm.begin(
            *("call",),
            socket=daemon.socket,
            method="commit",
            params={"migration": name},
            seconds=DEAD_SECONDS,
        )
        while not vm.rx_filter().vlan_table:
            pass
        vm.ask("kill", pid=daemon.pid, number=signal.SIGSTOP)
        reached.append(len(vm.rx_filter().vlan_table))
        if 0 < reached[-1] < 4094:
            break
        vm.ask("kill", pid=daemon.pid, number=signal.SIGCONT)
        vm.finish(commit)
        daemon.result("release", device="vp0")
    assert 0 < reached[-1] < 4094, reached
    daemon.kill()
    assert "unreachable" in vm.finish(commit)
    assert negotiated(vm, "vp0") is None
    assert vm.rx_filter().vlan == NO_FILTER
    fresh = start(vm)
    try:
        assert fresh.refused("status", migration=name)["kind"] == "no-such-migration"
        assert_restored(restore(fresh, "vp0", ALL_PARTS.parts)["result"])
        assert len(vm.rx_filter().vlan_table) == 4094
    finally:
        fresh.terminate()
    assert negotiated(vm, "vp0") is None
