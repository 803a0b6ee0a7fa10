"""States restored to the kernel's devices, judged by the outer QEMU and by the kernel."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.qemu.states import EVERY_VLAN, PARTS, WITHOUT_HASHES, Sample, vlans

from .host import Caller, Json, features_of, migration, negotiated, vhost_vdpa
from .machine import Machine

# vp_vdpa has three virtqueues here, so what needs more than one pair is for the guest-less path.
SINGLE_QUEUE = {
    name: sample
    for name, sample in PARTS.items()
    if not {"queue_pairs", "rss"} & sample.parts.keys()
}
ALL_PARTS = Sample(
    {name: part for name, part in WITHOUT_HASHES.parts.items() if name != "queue_pairs"},
    WITHOUT_HASHES.shown,
) | vlans([[1, 4094]], EVERY_VLAN)
NO_FILTER = "all"
"""What QEMU says of VLANs on a device that was reset and has negotiated nothing."""
COMMANDS = 4094 + 1 + 1 + 1 + 6  # VLANs; MAC, offloads, MAC table, modes


def state_for(daemon: Caller, device: str, parts: Json, *, event_idx: bool = True) -> Json:
    """A state whose guest had all that the device offers."""
    features = [
        each for each in features_of(daemon, device) if event_idx or each != "RING_EVENT_IDX"
    ]
    return {"version": 1, "features": features, **parts}


def assert_restored(report: Json, commands: int | None = None) -> None:
    """Of a split ring."""
    assert_acknowledged(report, commands)
    assert report["ring"] == {
        "next_available": report["commands"],
        "next_used": report["commands"],
    }


def assert_acknowledged(report: Json, commands: int | None = None) -> None:
    assert report["outcome"] == "restored", report
    assert report["applied"] == report["commands"]
    assert commands is None or report["commands"] == commands
    assert (report["rejected_total"], report["unanswered_total"]) == (0, 0)
    assert report["device_must_reset"] is False


def restore_and_judge(vm: Machine, daemon: Caller, sample: Sample, *, event_idx: bool) -> Json:
    """For a guest that had all that the device offers, on a split ring."""
    state = state_for(daemon, "vp0", sample.parts, event_idx=event_idx)
    report = restored_and_judged(vm, daemon, sample, state)
    assert_restored(report)
    return report


def restored_and_judged(vm: Machine, daemon: Caller, sample: Sample, state: Json) -> Json:
    """Prepares, commits, and holds the outer QEMU's filter against what it was in between."""
    name = migration()
    prepared = daemon.result("prepare", migration=name, state=state, target=vhost_vdpa("vp0"))
    assert prepared["state"] == "prepared"
    before = vm.rx_filter()
    report: Json = daemon.result("commit", migration=name)
    assert_acknowledged(report, prepared["commands"])
    assert vm.rx_filter() == replace(before, **sample.shown)
    assert report["doorbells"] <= prepared["doorbells"]
    return report


@pytest.mark.parametrize("sample", SINGLE_QUEUE.values(), ids=SINGLE_QUEUE)
def test_a_part_alone(vm: Machine, daemon: Caller, sample: Sample) -> None:
    restore_and_judge(vm, daemon, sample, event_idx=True)


@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "no-event-idx"])
def test_all_parts_with_4094_vlans(vm: Machine, daemon: Caller, event_idx: bool) -> None:
    report = restore_and_judge(vm, daemon, ALL_PARTS, event_idx=event_idx)
    assert report["commands"] == COMMANDS


def test_release_and_restore_again(vm: Machine, daemon: Caller) -> None:
    """The second restore starts from a device that was reset."""
    for ids in (range(1, 4095), range(7, 9)):
        sample = vlans([[ids.start, ids.stop - 1]], frozenset(ids))
        restore_and_judge(vm, daemon, sample, event_idx=True)
        assert vm.rx_filter().vlan_table == tuple(ids)
        assert daemon.result("release", device="vp0") == {}
        assert negotiated(vm, "vp0") is None
        assert vm.rx_filter().vlan == NO_FILTER


def test_the_device_is_kept_until_it_is_released(vm: Machine, daemon: Caller) -> None:
    name, target = migration(), vhost_vdpa("/dev/vhost-vdpa-0")
    state = state_for(daemon, "vp0", {"vlans": [42]})
    report = daemon.result("restore", migration=name, state=state, target=target)
    assert_restored(report, 1)
    assert vm.rx_filter().vlan_table == (42,)
    # The same again is told, and touches nothing.
    assert daemon.result("restore", migration=name, state=state, target=target) == report
    assert daemon.result("status", migration=name)["report"] == report
    assert daemon.result("release", device="/dev/vhost-vdpa-0") == {}
    # What it came to is a record, and stays one.
    assert daemon.result("restore", migration=name, state=state, target=target) == report
    assert vm.rx_filter().vlan == NO_FILTER


def test_cancelling_gives_the_device_back(vm: Machine, daemon: Caller) -> None:
    name, target = migration(), vhost_vdpa("vp0")
    daemon.result(
        "prepare", migration=name, state=state_for(daemon, "vp0", {"vlans": [1]}), target=target
    )
    assert negotiated(vm, "vp0") is not None
    assert daemon.result("cancel", migration=name)["state"] == "cancelled"
    assert negotiated(vm, "vp0") is None
    assert daemon.refused("commit", migration=name)["kind"] == "conflict"


def test_releasing_what_was_prepared_cancels_it(vm: Machine, daemon: Caller) -> None:
    name = migration()
    daemon.result(
        *("prepare",),
        migration=name,
        state=state_for(daemon, "vp0", {"vlans": [1]}),
        target=vhost_vdpa("vp0"),
    )
    daemon.result("release", device="vp0")
    assert daemon.result("status", migration=name)["state"] == "cancelled"
    assert daemon.refused("commit", migration=name)["kind"] == "conflict"


# --- vdpa_sim_net: an address space of its own for the CVQ, and one command ---


def test_the_simulator_takes_its_address(vm: Machine, daemon: Caller) -> None:
    for address in ("52:54:00:12:34:56", "02:00:00:00:00:07"):
        report = daemon.result(
            "restore",
            migration=migration(),
            state=state_for(daemon, "sim0", {"mac": address}),
            target=vhost_vdpa("sim0"),
        )
        assert_restored(report, 1)
        config = json.loads(vm.output("vdpa", "-j", "dev", "config", "show", "sim0"))
        assert config["config"]["sim0"]["mac"] == address
        daemon.result("release", device="sim0")


def test_both_devices_at_once(vm: Machine, daemon: Caller) -> None:
    begun = [
        daemon.begin(
            *("restore",),
            migration=migration(),
            state=state_for(daemon, device, parts),
            target=vhost_vdpa(device),
        )
        for device, parts in (("vp0", ALL_PARTS.parts), ("sim0", {"mac": "52:54:00:00:00:77"}))
    ]
    for number in begun:
        assert_restored(vm.finish(number)["result"])
    assert vm.rx_filter().vlan_table == tuple(sorted(EVERY_VLAN))
