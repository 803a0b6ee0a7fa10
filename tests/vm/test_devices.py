"""Devices as the daemon tells of them, held against the `vdpa` tool and the kernel."""

from __future__ import annotations

import json

from .host import Caller, Json, features_of, holding, migration, negotiated, vdpactl, vhost_vdpa
from .machine import MAC, Machine

EMPTY: Json = {"version": 1, "features": ["CTRL_VQ"]}
VLANS: Json = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [1, 2]}


def tool(vm: Machine, *arguments: str) -> Json:
    """What the vdpa tool says."""
    said: Json = json.loads(vm.output("vdpa", "-j", *arguments))
    return said


def by_name(devices: list[Json]) -> dict[str, Json]:
    return {each["name"]: each for each in devices}


def test_devices_are_those_that_the_vdpa_tool_shows(vm: Machine, daemon: Caller) -> None:
    shown = tool(vm, "dev", "show")["dev"]
    found = by_name(daemon.result("devices"))
    assert set(found) == set(shown) == {"vp0", "sim0"}
    for name, device in found.items():
        assert set(device) == {"name", "mgmtdev", "driver", "node", "features", "config"}
        assert device["mgmtdev"] == shown[name]["mgmtdev"]
        assert device["driver"] == "vhost_vdpa"
        number = vm.ask("read", path=f"/sys/bus/vdpa/devices/{name}/{device['node'][5:]}/dev")
        major, minor = number.strip().split(":")
        assert vm.output("stat", "-c", "%F %t %T", device["node"]).split() == [
            *("character", "special", "file"),
            *(f"{int(major):x}", f"{int(minor):x}"),
        ]


def test_their_config_is_the_vdpa_tool_s(vm: Machine, daemon: Caller) -> None:
    shown = tool(vm, "dev", "config", "show")["config"]
    for name, device in by_name(daemon.result("devices")).items():
        config = device["config"]
        # Some of the tool's keys end in a space.
        theirs = {key.strip(): value for key, value in shown[name].items()}
        assert config["mac"] == theirs["mac"]
        assert bool(config["status"] & 1) == (theirs["link"] == "up")
        assert config.get("mtu") == theirs.get("mtu")
        assert config.get("max_virtqueue_pairs") == theirs.get("max_vq_pairs")


def test_their_features_are_the_management_device_s(vm: Machine, daemon: Caller) -> None:
    """Neither of the two offers less than its management device could."""
    shown = tool(vm, "mgmtdev", "show")["mgmtdev"]
    for device in daemon.result("devices"):
        features = shown[device["mgmtdev"]]["dev_features"]
        # What the tool has no name for it shows as a number.
        assert {each for each in features if isinstance(each, str)} <= set(device["features"])
        assert len(features) == len(device["features"])


def test_vdpactl_shows_them(vm: Machine, daemon: Caller) -> None:
    code, out, err = vdpactl(daemon, "devices")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["vp0"][2:4] == ["vhost_vdpa", "/dev/vhost-vdpa-0"]
    assert f"mac={MAC}" in rows["vp0"]
    assert "sim0: MTU, MAC, STATUS, CTRL_VQ, CTRL_MAC_ADDR, ANY_LAYOUT, VERSION_1" in out
    code, out, _ = vdpactl(daemon, "--json", "devices")
    assert (code, json.loads(out)) == (0, daemon.result("devices"))


def test_a_device_of_another_driver_is_told_by_it(vm: Machine, daemon: Caller) -> None:
    vm.ask("write", path="/sys/bus/vdpa/drivers/vhost_vdpa/unbind", text="sim0")
    try:
        found = by_name(daemon.result("devices"))["sim0"]
        assert (found["driver"], found["node"]) == (None, None)
        refused = daemon.refused("check", state=EMPTY, target=vhost_vdpa("sim0"))
        assert refused["kind"] == "no-such-device"
        assert "no driver" in refused["message"]
    finally:
        vm.ask("write", path="/sys/bus/vdpa/drivers/vhost_vdpa/bind", text="sim0")


# --- check ---


def test_check_goes_by_what_the_device_offers(daemon: Caller) -> None:
    for device, fits in (("vp0", True), ("sim0", False)):
        result = daemon.result("check", state=VLANS, target=vhost_vdpa(device))
        assert result["compatible"] is fits
        assert {each["path"] for each in result["problems"]} <= {"features", "vlans"}
    assert any("CTRL_VLAN" in each["message"] for each in result["problems"])


def test_check_never_opens_the_device(vm: Machine, daemon: Caller) -> None:
    """The kernel would answer EBUSY."""
    with holding(vm, "/dev/vhost-vdpa-0"):
        assert daemon.result("check", state=VLANS, target=vhost_vdpa("vp0"))["compatible"]
        assert daemon.result("check", state=VLANS, target=vhost_vdpa("/dev/vhost-vdpa-0"))[
            "compatible"
        ]


def test_check_and_prepare_agree(vm: Machine, daemon: Caller) -> None:
    features = ["CTRL_VQ", "CTRL_VLAN", "RING_EVENT_IDX"]
    state = {"version": 1, "features": features, "vlans": [[1, 500]]}
    target = vhost_vdpa("vp0")
    looked = daemon.result("check", state=state, target=target)
    prepared = daemon.result("prepare", migration=migration(), state=state, target=target)
    assert looked["commands"] == prepared["commands"] == 500
    # A ring larger than the one that check goes by, as newer QEMUs have, takes fewer.
    assert looked["doorbells"] >= prepared["doorbells"]
    # Of a device that is kept it is known without asking anybody.
    again = daemon.result("check", state=state, target=target)
    assert again == looked | {"doorbells": prepared["doorbells"]}


def test_a_device_that_is_not_there(vm: Machine, daemon: Caller) -> None:
    for method, more in (("check", {}), ("prepare", {"migration": migration()})):
        for target in ("vp1", "/dev/vhost-vdpa-9", "/dev/null", "/etc/passwd", ".."):
            refused = daemon.refused(method, state=EMPTY, target=vhost_vdpa(target), **more)
            assert refused["kind"] == "no-such-device", target
    assert "vp0" in daemon.refused("check", state=EMPTY, target=vhost_vdpa("/dev/null"))["message"]


# --- what is negotiated ---


def test_negotiated_is_what_the_guest_had_of_what_the_device_offers(
    vm: Machine, daemon: Caller
) -> None:
    assert negotiated(vm, "vp0") is None
    guest = ["CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "GUEST_CSUM", "RING_EVENT_IDX"]
    state = {"version": 1, "features": guest}
    daemon.result("prepare", migration=migration(), state=state, target=vhost_vdpa("vp0"))
    assert set(negotiated(vm, "vp0") or ()) == {*guest, "VERSION_1", "ACCESS_PLATFORM"}


def test_what_the_device_lacks_is_named(vm: Machine, daemon: Caller) -> None:
    features = [*features_of(daemon, "sim0"), "CTRL_RX", "CTRL_VLAN", "RSS"]
    state = {"version": 1, "features": features, "vlans": [1]}
    refused = daemon.refused(
        "prepare", migration=migration(), state=state, target=vhost_vdpa("sim0")
    )
    assert refused["kind"] == "incompatible"
    assert [each["path"] for each in refused["problems"]] == ["features", "vlans"]
    assert "CTRL_RX, CTRL_VLAN, RSS" in refused["problems"][0]["message"]
    # It was let go of again.
    assert negotiated(vm, "sim0") is None
    assert "vdpad keeps no device" in daemon.refused("release", device="sim0")["message"]
