"""The back end on the kernel's devices, judged by the outer QEMU and by the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import TRIXIE
from tests.qemu.versions import why_unavailable as why_no_version
from tests.support.waiting import wait_until

from .host import Json, negotiated
from .machine import MAC, Machine
from .steps.followed import admitted
from .test_restore import NO_FILTER
from .test_steps import NODES, telling, told

OTHER_MAC = "52:54:00:aa:bb:cc"
SIM_MAC, SECOND_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
LINK_UP = 1
OWN_MACS = {"vp0": MAC, "sim0": SIM_MAC}
PLACES = ("begun", "set", "less", "wider", "after a pause", "another back end")


def shown_mac(vm: Machine, device: str) -> str:
    """The address in a device's config space, by the vdpa tool."""
    config = json.loads(vm.output("vdpa", "-j", "dev", "config", "show", device))
    mac: str = config["config"][device]["mac"]
    return mac


def outer_filter(vm: Machine) -> Json:
    """What the outer QEMU's device lets in, as a story tells it."""
    told: Json = json.loads(json.dumps(admitted(vm.rx_filter())))
    return told


def assert_has(vm: Machine, captured: Json) -> None:
    """The outer QEMU's device has what the back end has captured."""
    found = vm.rx_filter()
    assert found.main_mac == captured["mac"]
    assert found.promiscuous is captured["rx"]["promisc"]
    assert (found.multicast == "all") is captured["rx"]["allmulti"]
    assert list(found.unicast_table) == captured["mac_table"]["unicast"]
    assert list(found.multicast_table) == captured["mac_table"]["multicast"]
    assert list(found.vlan_table) == list(ids(captured["vlans"]))


def ids(vlans: list[int | list[int]]) -> Iterator[int]:
    """Each of a state's VLAN ids, some of which stand as ranges."""
    for each in vlans:
        first, last = each if isinstance(each, list) else (each, each)
        yield from range(first, last + 1)


# --- vp_vdpa ---


def test_a_guest_s_commands_and_a_pause(vm: Machine) -> None:
    with telling(vm, "commands", "vp0") as story:
        captured = story.reaches("set")["captured"]
        assert captured["mac"] == OTHER_MAC
        assert captured["vlans"] == [[1, 99], [200, 300]]
        assert_has(vm, captured)
        story.goes_on_from("set")
        stopped = story.reaches("stopped")
        # Its driver cannot suspend it, so the used rings say it.
        assert (stopped["bases"][:2], stopped["suspended"]) == ([0, 0], 0)
        assert stopped["bases"][2] > 400
        assert vm.rx_filter().vlan == NO_FILTER
        assert negotiated(vm, "vp0") is None
        story.goes_on_from("stopped")
        assert story.reaches("goes on")["events"] == ["GuestRestored"]
        assert_has(vm, captured)
        story.goes_on_from("goes on")
        story.reaches("again")
        assert vm.rx_filter().vlan_table == (*ids(captured["vlans"]), 400)
        story.goes_on_from("again")
        fresh = story.reaches("fresh")["captured"]
        assert "vlans" not in fresh
        assert vm.rx_filter().main_mac == MAC
        story.goes_on_from("fresh")
        seen = story.ends()
    assert (seen["acks"], seen["refused"], seen["acks again"]) == ([0], [1], [0])
    assert seen["captured"] == {**captured, "vlans": [*captured["vlans"], 400]}
    # A ring that was used, on a driver that begins one nowhere but at 0.
    assert seen["bases"][:2] == [0, 1]
    assert seen["acked"] == 1
    (refusal,) = seen["refusals"]
    assert "ring 1: expected one that begins at 0, it goes on at 1" in refusal
    assert "SET_VRING_BASE 1 1" in refusal


def test_where_nobody_says_that_it_works_in_order_nobody_is_told_where_it_stands(
    vm: Machine,
) -> None:
    seen = told(vm, "unplaced", "vp0")
    assert (seen["reply"], seen["status"]) == ("", "stopped")
    (refusal,) = seen["refusals"]
    assert refusal.startswith("GET_VRING_BASE: ")
    assert "--in-order" in refusal


def test_what_a_device_tells_of_its_own_accord(vm: Machine) -> None:
    with telling(vm, "told_of", "vp0") as story:
        story.reaches("running")
        vm.set_link(up=False)
        try:
            story.goes_on_from("running")
            story.reaches("link down")
        finally:
            vm.set_link(up=True)
        story.goes_on_from("link down")
        seen = story.ends()
    before, after = seen["link"]
    assert (before & LINK_UP, after & LINK_UP) == (1, 0)
    assert seen["needs reset"] is True
    assert "the device itself says that it needs a reset" in seen["events"][0]
    assert (len(seen["events"]), seen["changes"]) == (1, 3)
    assert seen["after a reset"] == "running"


def test_one_address_space_is_refused_and_let_go_of(vm: Machine) -> None:
    seen = told(vm, "isolation", "vp0")
    for each in (seen["first"], seen["again"]):
        assert each.startswith("SharedAddressSpace: vhost-vdpa-0: ")
        assert "--shared-address-space" in each
    assert told(vm, "isolation", "sim0") == {"first": "stopped", "again": "stopped"}


def test_the_filter_that_an_inner_qemu_keeps_is_followed(vm: Machine) -> None:
    """The outer QEMU's device lets in what the inner one's does, which knows nothing of it."""
    skip_or_fail(why_no_version(TRIXIE))
    seen: dict[str, Json] = {}
    with telling(vm, "followed", "vp0") as story:
        for place in PLACES:
            # Programs start there, a QEMU among them.
            inner = story.reaches(place)["inner"]
            wait_until(lambda: outer_filter(vm) == inner)  # noqa: B023
            story.goes_on_from(place)
            seen[place] = inner
        told = story.ends()
    assert seen["begun"]["main_mac"] != MAC
    assert seen["set"]["vlan_table"] == [*range(1, 100), *range(200, 301)]
    assert (seen["less"]["vlan_table"], seen["less"]["nobcast"]) == ([*range(1, 100)], True)
    assert seen["wider"]["every unicast"] is True
    assert seen["another back end"] == seen["after a pause"] == seen["wider"]
    assert told["captured"]["missing"] == []
    assert told["captured"]["state"]["vlans"] == [[1, 99], 4000]
    assert told["events"] == ["filter-followed"]


# --- vdpa_sim_net ---


def test_packets_commands_a_pause_and_another_guest(vm: Machine) -> None:
    with telling(vm, "back_end_packets", "sim0") as story:
        told_when_set = story.reaches("set")
        assert told_when_set["captured"]["mac"] == OTHER_MAC
        assert shown_mac(vm, "sim0") == OTHER_MAC
        story.goes_on_from("set")
        story.reaches("next guest")
        assert shown_mac(vm, "sim0") == told_when_set["own"]
        story.goes_on_from("next guest")
        seen = story.ends()
    assert (seen["own address"], seen["looped"]) == ("zero", "one")
    assert (seen["acks"], seen["refused"], seen["acks again"]) == ([0], [1], [0])
    assert (seen["bases"], seen["suspended"]) == ([2, 2, 2], 1)
    assert seen["events"] == ["GuestRestored"]
    assert seen["after a pause"] == "two"
    assert seen["next guest"] == [told_when_set["own"], "three"]


def test_a_device_that_is_removed_while_a_guest_has_it(vm: Machine) -> None:
    """The kernel waits until it is closed, and tells nobody."""
    with telling(vm, "removed", "sim0") as story:
        story.reaches("running")
        removal = vm.begin("run", argv=["vdpa", "dev", "del", "sim0"])
        vm.ask("wait_until_gone", path=NODES["sim0"])
        story.goes_on_from("running")
        seen = story.reaches("still runs")
        story.goes_on_from("still runs")
        story.ends()
    assert vm.finish(removal)["code"] == 0
    add = ("vdpa", "dev", "add", "name", "sim0", "mgmtdev", "vdpasim_net", "mac", SIM_MAC)
    wait_until(lambda: vm.run(*add).code == 0)
    assert seen == {"acks": [0], "looped": "one", "bases": [1, 1, 1], "status": "running"}


@pytest.fixture
def second(vm: Machine) -> Iterator[None]:
    """Another simulator, sim1."""
    vm.output("vdpa", "dev", "add", "name", "sim1", "mgmtdev", "vdpasim_net", "mac", SECOND_MAC)
    yield
    vm.output("vdpa", "dev", "del", "sim1")


@pytest.mark.usefixtures("second")
def test_another_device_takes_over_and_back_under_packets(vm: Machine) -> None:
    with telling(vm, "switched", "sim0") as story:
        assert story.reaches("other")["captured"]["mac"] == OTHER_MAC
        assert shown_mac(vm, "sim1") == OTHER_MAC
        # It was given back with its own, and nobody has negotiated with it.
        assert shown_mac(vm, "sim0") == SIM_MAC
        assert negotiated(vm, "sim0") is None
        story.goes_on_from("other")
        seen = story.ends()
    assert shown_mac(vm, "sim1") == SECOND_MAC
    assert seen["busy"].startswith("NodeBusy: ")
    assert seen["lacking"].startswith("NotRestored: ")
    assert seen["lacking"].endswith("; vhost-vdpa-1 goes on as before")
    assert seen["gone"].startswith("NoSuchVdpaDevice: ")
    assert seen["outcomes"] == [["restored", 1]]
    assert seen["stood still"] is True
    assert (seen["ways"], seen["missed"]) == (["relay", "relay"], [])
    assert (seen["acks"], seen["acks again"], seen["as before"]) == ([0], [0], True)
    assert seen["refusals"] == []


# --- both ---


@pytest.mark.parametrize(("device", "received"), [("vp0", 0), ("sim0", 101)])
def test_packets_go_while_the_back_end_sleeps(vm: Machine, device: str, received: int) -> None:
    seen = told(vm, "asleep", device)
    assert (seen["acks"], seen["acks again"]) == ([0], [0])
    assert (seen["sleeps"], seen["switches"]) == (True, True)
    assert seen["bases"] == [received, 101, 2]
    # The simulator keeps through a reset what a guest has set.
    assert shown_mac(vm, device) == OWN_MACS[device]


@pytest.mark.parametrize(
    ("device", "story", "way"),
    [("vp0", "logged", "everything"), ("sim0", "logged", "relay"), ("sim0", "restarted", "relay")],
)
def test_what_a_device_writes_while_memory_is_logged_is_marked(
    vm: Machine, device: str, story: str, way: str
) -> None:
    seen = told(vm, story, device)
    assert seen == {
        "acks": [0],
        "ways": [way],
        "missed": [],
        "all": way == "everything",
        "bases": [0 if device == "vp0" else seen["packets"], seen["packets"], seen["commands"]],
        "packets": 120,
        "commands": 20,
    }
