"""Packed rings of a kernel's device, and IN_ORDER: vp_vdpa over a device of QEMU 11.1's.

The layout is one for all queues of a device, so it is the guest's wherever the device has it. What
the kernel says was negotiated tells that it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.availability import skip_or_fail
from tests.qemu.states import Sample
from tests.qemu.versions import TRIXIE_BACKPORTS
from tests.qemu.versions import why_unavailable as why_no_qemu

from .host import Caller, Json, Started, features_of, negotiated, start
from .machine import Machine, machine, why_unavailable
from .test_restore import (
    ALL_PARTS,
    COMMANDS,
    NO_FILTER,
    SINGLE_QUEUE,
    assert_restored,
    restored_and_judged,
)

RING_SIZE = 64
PACKED = frozenset({"RING_PACKED"})
IN_ORDER = frozenset({"IN_ORDER"})
OFFERED = PACKED | IN_ORDER
RINGS = {
    "packed": PACKED,
    "packed-in-order": PACKED | IN_ORDER,
    "split-in-order": IN_ORDER,
    "split": frozenset[str](),
}


@pytest.fixture(scope="module")
def vm() -> Iterator[Machine]:
    """Another machine than the other files'."""
    skip_or_fail(why_unavailable() or why_no_qemu(TRIXIE_BACKPORTS))
    with machine(device="packed=on,in_order=on", qemu=TRIXIE_BACKPORTS.program) as running:
        yield running


@pytest.fixture(scope="module")
def started(vm: Machine) -> Iterator[Started]:
    daemon = start(vm)
    yield daemon
    daemon.terminate()
    assert [each for each in daemon.events() if "exception" in each] == []


@pytest.fixture
def daemon(started: Started) -> Iterator[Caller]:
    """Keeping no device once the test is over."""
    yield started
    started.reply("release", device="vp0")


def restore(
    vm: Machine, daemon: Caller, sample: Sample, ring: frozenset[str], *, event_idx: bool = True
) -> Json:
    """For a guest that had all of the device but, of the ring, only this."""
    left_out = OFFERED - ring | ({"RING_EVENT_IDX"} if not event_idx else set())
    features = [each for each in features_of(daemon, "vp0") if each not in left_out]
    state = {"version": 1, "features": features, **sample.parts}
    report = restored_and_judged(vm, daemon, sample, state)
    assert set(negotiated(vm, "vp0") or ()) & OFFERED == ring
    if ring & PACKED:
        assert report["ring"] == stands(report["commands"])
    else:
        assert_restored(report)
    return report


def stands(commands: int) -> Json:
    """QEMU's packed ring behind so many commands, of two descriptors each."""
    laps, at = divmod(2 * commands, RING_SIZE)
    wrap = 1 - laps % 2
    return {"next_available": at, "next_used": at, "available_wrap": wrap, "used_wrap": wrap}


@pytest.mark.parametrize("sample", SINGLE_QUEUE.values(), ids=SINGLE_QUEUE)
def test_a_part_alone_on_a_packed_ring(vm: Machine, daemon: Caller, sample: Sample) -> None:
    restore(vm, daemon, sample, PACKED)


@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "no-event-idx"])
@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_all_parts_with_4094_vlans(
    vm: Machine, daemon: Caller, ring: frozenset[str], event_idx: bool
) -> None:
    report = restore(vm, daemon, ALL_PARTS, ring, event_idx=event_idx)
    assert report["commands"] == COMMANDS


def test_a_device_is_released_and_restored_with_the_other_layout(
    vm: Machine, daemon: Caller
) -> None:
    for ring in (PACKED, frozenset[str](), PACKED):
        restore(vm, daemon, ALL_PARTS, ring)
        daemon.result("release", device="vp0")
        assert vm.rx_filter().vlan == NO_FILTER


def test_the_device_does_what_the_specification_says(vm: Machine) -> None:
    done = vm.run(sys.executable, "-m", "vdpad.cli.vdpactl", "--json", "selftest", "vp0")
    assert done.code == 0, done
    found = json.loads(done.out)
    assert set(found["features"]) >= OFFERED
    assert found["findings"] == []
    assert "fail" not in {each["verdict"] for each in found["cases"]}
    assert {each["batch"]["ack"] for each in found["commands"]} == {0}
