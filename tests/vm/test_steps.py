"""A device driven in steps from inside the machine, judged by the kernel and the outer QEMU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from vdpad.virtio.features import FEATURES

from .host import Json, negotiated, unused
from .machine import MAC, Machine
from .test_restore import NO_FILTER

NODES = {"vp0": "/dev/vhost-vdpa-0", "sim0": "/dev/vhost-vdpa-1"}
LINK_UP = 1
PAGES_LOW, PAGES_HIGH = 4, 1


@dataclass
class Story:
    """A story that is being told in the machine."""

    vm: Machine
    pid: int
    folder: str
    log: str
    ended: bool = False

    def reaches(self, place: str) -> Json:
        """What it has seen once it pauses there."""
        text = f'{{"at": "{place}"'
        self.vm.ask("wait_for", path=self.log, text=text)
        (told,) = (each for each in self._told() if each.get("at") == place)
        seen: Json = told["seen"]
        return seen

    def goes_on_from(self, place: str) -> None:
        self.vm.ask("write", path=f"{self.folder}/{place}", text="")

    def ends(self) -> Json:
        """All that it has seen."""
        self.ended = True
        assert self.vm.ask("wait", pid=self.pid) == 0
        seen: Json = self._told()[-1]["end"]
        return seen

    def _told(self) -> list[Json]:
        lines = self.vm.ask("read", path=self.log).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextmanager
def telling(vm: Machine, story: str, device: str) -> Iterator[Story]:
    folder = unused("story")
    vm.output("mkdir", folder)
    argv = [sys.executable, "-m", "tests.vm.steps", NODES[device], story, folder]
    log = f"{folder}/log"
    running = Story(vm, vm.ask("spawn", argv=argv, stderr=log), folder, log)
    try:
        yield running
    except BaseException as error:
        error.add_note(vm.ask("read", path=log))
        raise
    finally:
        if not running.ended:
            vm.ask("kill", pid=running.pid)
            vm.ask("wait", pid=running.pid)


def told(vm: Machine, story: str, device: str) -> Json:
    """What a story has seen that does not pause."""
    with telling(vm, story, device) as running:
        return running.ends()


# --- asked, negotiated ---


def names_of(features: list[str] | None) -> list[str]:
    """What the vdpa tool shows; what it has no name for it shows as a number."""
    assert features is not None
    return sorted(FEATURES.name(each) if isinstance(each, int) else each for each in features)


@pytest.mark.parametrize(
    ("device", "mac", "expected"),
    [
        (
            "vp0",
            MAC,
            {
                "backend": ["IOTLB_MSG_V2", "IOTLB_BATCH", "IOTLB_ASID", "IOTLB_PERSIST"],
                "address_spaces": 1,
                "control_queue": 2,
                "largest": 64,
                "control_space": 0,
            },
        ),
        (
            "sim0",
            "52:54:00:00:00:01",
            {
                "backend": [
                    *("IOTLB_MSG_V2", "IOTLB_BATCH", "IOTLB_ASID", "SUSPEND", "RESUME"),
                    *("ENABLE_AFTER_DRIVER_OK", "IOTLB_PERSIST"),
                ],
                "address_spaces": 2,
                "control_queue": 2,
                "largest": 256,
                "control_space": 1,
            },
        ),
    ],
)
def test_asked_at_once_and_negotiated_twice(
    vm: Machine, device: str, mac: str, expected: Json
) -> None:
    with telling(vm, "look", device) as story:
        for place in ("everything", "fewer"):
            features = story.reaches(place)["features"]
            assert names_of(negotiated(vm, device)) == sorted(features)
            story.goes_on_from(place)
        assert "MTU" not in features
        story.reaches("reset")
        assert negotiated(vm, device) is None
        story.goes_on_from("reset")
        seen = story.ends()
    shown = json.loads(vm.output("vdpa", "-j", "dev", "config", "show", device))
    assert seen["mac"] == shown["config"][device]["mac"]
    assert seen["stray"].startswith("DeviceRefused: ")
    assert "RSS" in seen["stray"]
    assert expected.items() <= seen.items()


# --- memory ---


def test_regions_by_the_kernel_s_count_of_locked_pages(vm: Machine) -> None:
    seen = told(vm, "pinned", "vp0")
    both = PAGES_LOW + PAGES_HIGH
    assert seen["pages"] == [0, PAGES_LOW, both, PAGES_HIGH, PAGES_HIGH, PAGES_LOW, 0]
    assert all(each.startswith("BadMapping: ") for each in seen["refused"])


def test_regions_by_what_the_device_reaches(vm: Machine) -> None:
    seen = told(vm, "unmapped", "sim0")
    assert seen["another"] == [[1, 1], "one"]
    assert seen["its own"] == 1
    assert seen["mapped again"] == [2, "three"]


# --- a whole life with packets ---


def test_replay_data_pause_and_a_second_start(vm: Machine) -> None:
    assert told(vm, "packets", "sim0") == {
        "before the replay": [5, 5],
        "acked": "restored",
        "before enabling": [5, 5],
        "enabled": [[6, 6], "one"],
        "called": [True, True],
        "suspended": [[6, 6], [6, 6]],
        "resumed": [[7, 7], "two"],
        "acked again": "restored",
        "started again": [[7, 7], [8, 8], "three"],
    }


def test_a_second_start_on_a_kernel_that_forgets_what_was_mapped(vm: Machine) -> None:
    seen = told(vm, "older_kernel", "sim0")
    assert seen == {"acked": "restored", "used": [1, 1], "received": "one"}


def test_a_ring_that_is_moved_while_the_device_is_suspended(vm: Machine) -> None:
    assert told(vm, "moved_ring", "sim0") == {"old": [1, 2], "new": 2, "received": "two"}


# --- a replay between the CVQ's enabling and the data queues' ---


def test_a_replay_before_the_data_queues(vm: Machine) -> None:
    with telling(vm, "replayed", "vp0") as story:
        story.reaches("started")
        assert vm.rx_filter().vlan_table == ()
        story.goes_on_from("started")
        assert story.reaches("replayed") == {"outcome": "restored", "used": [0, 0]}
        assert vm.rx_filter().vlan_table == tuple(range(1, 301))
        story.goes_on_from("replayed")
        assert story.reaches("enabled") == {"used": [0, 1], "status": 15}
        assert vm.rx_filter().vlan_table == tuple(range(1, 301))
        story.goes_on_from("enabled")
        story.reaches("reset")
        assert vm.rx_filter().vlan == NO_FILTER
        story.goes_on_from("reset")
        assert story.reaches("again") == {"outcome": "restored"}
        assert vm.rx_filter().vlan_table == (7,)
        story.goes_on_from("again")
        seen = story.ends()
    # On the last pages that the device reaches.
    assert seen["control_space"] == 0
    assert 0 <= seen["behind the shadow"] < 4096


# --- refused ---


def test_what_vp_vdpa_does_not_have(vm: Machine) -> None:
    seen = told(vm, "refusals", "vp0")
    for each, phase in zip(seen["too early"], ("running", "negotiated", "negotiated"), strict=True):
        assert each.startswith("OutOfOrder: ")
        assert f"expected a device that is {phase}" in each
        assert each.endswith("it is reset")
    assert seen["no such queue"].startswith("VhostVdpaError: ")
    assert "no virtqueue of this index" in seen["no such queue"]
    for step, name in (("begin at 5", "SET_VRING_BASE 0 5"), ("base", "GET_VRING_BASE 0")):
        assert seen[step].startswith(f"Unsupported: /dev/vhost-vdpa-0: {name}: ")
        assert seen[step].endswith("the kernel or the device's driver does not have it")
    refused, phase = seen["suspend"]
    assert refused.startswith("Unsupported: /dev/vhost-vdpa-0: SUSPEND: ")
    assert phase == "running"
    assert seen["disable"].startswith("DeviceRefused: ")
    assert "got 0x4f" in seen["disable"]
    assert seen["after a reset"] == 15


@pytest.mark.parametrize("device", NODES)
def test_the_kernel_says_nothing_to_what_is_refused_as_out_of_order(
    vm: Machine, device: str
) -> None:
    """Where this fails, the kernel has learned to say it, and a check of ours may go."""
    seen = told(vm, "silence", device)
    assert set(seen.values()) == {"taken"}, seen


def test_a_call_that_comes_after_driver_ok_would_be_deaf(vm: Machine) -> None:
    """vp_vdpa allocates interrupts then, for the queues that have a call."""
    seen = told(vm, "late_call", "vp0")
    assert seen["before"] == ["taken", [0, 1], True]
    refused, used, called = seen["after"]
    assert refused.startswith("OutOfOrder: ")
    assert (used, called) == ([0, 1], False)


# --- the config space ---


@pytest.mark.parametrize(("device", "takes"), [("vp0", False), ("sim0", True)])
def test_config_is_read_and_written(vm: Machine, device: str, takes: bool) -> None:
    seen = told(vm, "config", device)
    assert seen["after"] == ("02:00:00:00:00:07" if takes else seen["before"])
    assert seen["call"] == "taken"
    for each in ("beyond", "no eventfd"):
        assert seen[each].startswith("VhostVdpaError: "), seen


def test_a_change_of_the_config_space_is_called(vm: Machine) -> None:
    with telling(vm, "config_call", "vp0") as story:
        story.reaches("running")
        vm.set_link(up=False)
        try:
            story.goes_on_from("running")
            story.reaches("without")
        finally:
            vm.set_link(up=True)
        story.goes_on_from("without")
        seen = story.ends()
    before, after = seen["status"]
    assert (before & LINK_UP, after & LINK_UP) == (1, 0)
    assert (seen["called"], seen["silent"]) == (True, True)
