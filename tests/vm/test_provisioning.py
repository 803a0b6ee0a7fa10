"""Devices made to be like others, judged by the vdpa tool: what it says of both is the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import CACHE

from .host import Caller, Json, holding, unused, vdpactl
from .machine import MAC, Machine, Result

TOOL = CACHE / "vdpa-tool" / "bin" / "vdpa"
"""One that knows device_features, which Debian 12's does not."""

SIMULATOR = "vdpasim_net"


@pytest.fixture(scope="module", autouse=True)
def _has_tool() -> None:
    reason = CACHE / "no-vdpa-tool"
    said = reason.read_text().strip() if reason.exists() else "run `make test`"
    skip_or_fail(None if TOOL.exists() else f"no vdpa tool of trixie: {said}")


def here(vm: Machine, *arguments: str) -> Result:
    """How a command of vdpactl ends that asks the kernel."""
    return vm.run(sys.executable, "-m", "vdpad.cli.vdpactl", *arguments)


def done(vm: Machine, *arguments: str) -> Json:
    """The result of one that must succeed."""
    ended = here(vm, "--json", *arguments)
    assert (ended.code, ended.err) == (0, ""), ended
    result: Json = json.loads(ended.out)
    return result


def refused(vm: Machine, *arguments: str, code: int) -> Json:
    """Why one is refused."""
    ended = here(vm, "--json", *arguments)
    assert ended.code == code, ended
    error: Json = json.loads(ended.out)["error"]
    return error


def tool(vm: Machine, *arguments: str) -> Json:
    """What the vdpa tool says, without the spaces that some of its keys end in."""
    said = json.loads(vm.output(str(TOOL), "-jp", *arguments))
    return {
        name: {key.strip(): value for key, value in told.items()}
        for each in said.values()
        for name, told in each.items()
    }


def file_with(vm: Machine, value: object) -> str:
    """A file in the machine that holds this as JSON."""
    path = unused("source")
    vm.ask("write", path=path, text=json.dumps(value))
    return path


def listing_of(vm: Machine, daemon: Caller, *names: str) -> str:
    """A file with what `vdpactl devices --json` prints of these devices."""
    code, out, _ = vdpactl(daemon, "--json", "devices")
    assert code == 0
    return file_with(vm, [each for each in json.loads(out) if each["name"] in names])


@contextmanager
def made_by_the_tool(vm: Machine, name: str, mgmtdev: str, *settings: str) -> Iterator[None]:
    vm.output(str(TOOL), "dev", "add", "name", name, "mgmtdev", mgmtdev, *settings)
    try:
        yield
    finally:
        vm.run(str(TOOL), "dev", "del", name)


@pytest.fixture
def card(vm: Machine, daemon: Caller) -> Iterator[str]:
    """The management device of vp0, which is gone meanwhile; the daemon keeps nothing."""
    (found,) = (each for each in daemon.result("devices") if each["name"] == "vp0")
    mgmtdev: str = found["mgmtdev"]
    vm.output(str(TOOL), "dev", "del", "vp0")
    yield mgmtdev
    vm.output(str(TOOL), "dev", "add", "name", "vp0", "mgmtdev", mgmtdev)


# --- like another ---


SIM_SETTINGS = {
    "as the driver makes them": (),
    "an address and an MTU": ("mac", "52:54:00:00:00:07", "mtu", "9000"),
    # MAC, STATUS, CTRL_VQ, CTRL_MAC_ADDR, VERSION_1, ACCESS_PLATFORM
    "fewer features": ("device_features", "0x300830020", "mac", "52:54:00:00:00:08"),
    # MTU and those that every device needs
    "hardly a feature": ("device_features", "0x300000008", "mtu", "1280"),
}


@pytest.mark.parametrize("settings", SIM_SETTINGS.values(), ids=SIM_SETTINGS)
def test_a_simulated_device_like_another_is_equal_to_it(
    vm: Machine, daemon: Caller, settings: tuple[str, ...]
) -> None:
    with made_by_the_tool(vm, "first", SIMULATOR, *settings):
        source = listing_of(vm, daemon, "first")
        result = done(vm, "provision", "--like", source, "--mgmtdev", SIMULATOR, "--name", "second")
        try:
            shown = tool(vm, "dev", "config", "show")
            assert shown["second"] == shown["first"]
            devices = tool(vm, "dev", "show")
            assert devices["second"] == devices["first"]
            (told,) = (each for each in daemon.result("devices") if each["name"] == "second")
            assert result["device"] == told
        finally:
            assert done(vm, "deprovision", "second") == {"name": "second", "mgmtdev": SIMULATOR}
    assert "second" not in tool(vm, "dev", "show")


@pytest.mark.parametrize("features", [None, 0x320030023])
def test_a_card_s_device_like_another_is_equal_to_it(
    vm: Machine, daemon: Caller, card: str, features: int | None
) -> None:
    """Its driver takes no address, so it must have the same of itself."""
    settings = () if features is None else ("device_features", f"{features:#x}")
    with made_by_the_tool(vm, "vp0", card, *settings):
        source = listing_of(vm, daemon, "vp0", "sim0")
        first = tool(vm, "dev", "config", "show", "vp0")
    result = done(
        vm, "provision", "--like", source, "--device", "vp0", "--mgmtdev", card, "--name", "vp1"
    )
    assert "mac" not in result["command"]
    try:
        assert tool(vm, "dev", "config", "show", "vp1")["vp1"] == first["vp0"]
        assert result["device"]["config"]["mac"] == MAC
    finally:
        done(vm, "deprovision", "vp1")


def test_the_line_that_it_prints_makes_the_same(vm: Machine, daemon: Caller) -> None:
    with made_by_the_tool(vm, "first", SIMULATOR, *SIM_SETTINGS["fewer features"]):
        source = listing_of(vm, daemon, "first")
        arguments = ("--like", source, "--mgmtdev", SIMULATOR, "--name", "second")
        ended = here(vm, "provision", *arguments, "--dry-run")
        assert (ended.code, ended.err) == (0, "")
        assert "second" not in tool(vm, "dev", "show")
        line = ended.out.strip()
        assert line.startswith("vdpa dev add name second mgmtdev vdpasim_net device_features 0x3")
        vm.output("sh", "-c", f"{TOOL.parent}/{line}")
        try:
            shown = tool(vm, "dev", "config", "show")
            assert shown["second"] == shown["first"]
        finally:
            done(vm, "deprovision", "second")


def test_a_state_alone_is_enough_for_a_guest_without_mtu_and_queues(vm: Machine) -> None:
    features = ["MAC", "CTRL_VQ", "CTRL_MAC_ADDR", "VERSION_1", "RING_PACKED"]
    state = {"version": 1, "features": features, "mac": "52:54:00:00:00:09"}
    source = file_with(vm, state)
    result = done(vm, "provision", "--like", source, "--mgmtdev", SIMULATOR)
    try:
        assert result["device"]["name"] == "vdpa0"
        config = tool(vm, "dev", "config", "show", "vdpa0")["vdpa0"]
        assert config["mac"] == state["mac"]
        assert set(result["device"]["features"]) == {
            *("MAC", "CTRL_VQ", "CTRL_MAC_ADDR", "VERSION_1", "ACCESS_PLATFORM")
        }
    finally:
        done(vm, "deprovision", "vdpa0")


# --- management devices ---


def test_management_devices_are_those_that_the_vdpa_tool_shows(vm: Machine, daemon: Caller) -> None:
    shown = tool(vm, "mgmtdev", "show")
    listed = json.loads(here(vm, "--json", "devices", "--management").out)
    assert {each["mgmtdev"] for each in listed} == set(shown)
    for each in listed:
        theirs = shown[each["mgmtdev"]]
        assert each["classes"] == theirs["supported_classes"]
        assert each["max_virtqueues"] == theirs["max_supported_vqs"]
        # What the tool has no name for it shows as a number.
        names = {name for name in theirs["dev_features"] if isinstance(name, str)}
        assert names <= set(each["features"])
        assert len(theirs["dev_features"]) == len(each["features"])
    made = {name: each["mgmtdev"] for each in listed for name in each["devices"]}
    assert made == {each["name"]: each["mgmtdev"] for each in daemon.result("devices")}


# --- what is refused ---


def test_all_that_does_not_fit_is_told_by_path(vm: Machine, daemon: Caller) -> None:
    state = {"version": 1, "features": ["CTRL_VQ", "CTRL_VLAN"], "vlans": [1]}
    device = {
        "name": "net7",
        "features": ["MAC", "MQ", "CTRL_VQ", "VERSION_1", "ACCESS_PLATFORM"],
        "config": {"mac": "52:54:00:00:00:09", "max_virtqueue_pairs": 4},
    }
    both = ("--like", file_with(vm, [device]), "--like", file_with(vm, state))
    before = tool(vm, "dev", "show")
    error = refused(vm, "provision", *both, "--mgmtdev", SIMULATOR, code=3)
    assert error["data"]["kind"] == "incompatible"
    assert [each["path"] for each in error["data"]["problems"]] == [
        *("features", "config.max_virtqueue_pairs", "state.features", "state.vlans")
    ]
    assert tool(vm, "dev", "show") == before


def test_an_address_that_the_card_has_not_is_found_out_and_the_device_goes_again(
    vm: Machine, daemon: Caller, card: str
) -> None:
    device = {
        "name": "vp1",
        "features": ["MAC", "VERSION_1", "ACCESS_PLATFORM"],
        "config": {"mac": "52:54:00:00:00:09"},
    }
    error = refused(vm, "provision", "--like", file_with(vm, [device]), "--mgmtdev", card, code=3)
    assert [each["path"] for each in error["data"]["problems"]] == ["config.mac"]
    assert MAC in error["message"]
    assert "vp1" not in tool(vm, "dev", "show")


def test_names_and_management_devices_in_use_or_not_there(vm: Machine, daemon: Caller) -> None:
    source = listing_of(vm, daemon, "sim0")
    like = ("provision", "--like", source, "--mgmtdev")
    assert refused(vm, *like, SIMULATOR, code=1)["data"]["kind"] == "conflict"
    error = refused(vm, *like, "pci/0000:00:99.0", code=9)
    assert error["data"]["kind"] == "no-such-device"
    assert SIMULATOR in error["message"]
    (vp0,) = (each for each in daemon.result("devices") if each["name"] == "vp0")
    error = refused(vm, *like, vp0["mgmtdev"], "--name", "vp1", code=3)
    assert "vp0 is there already" in str(error["data"]["problems"])


def test_a_device_that_is_open_is_not_removed(vm: Machine, daemon: Caller) -> None:
    """The kernel would wait, and whoever asks it with it."""
    with made_by_the_tool(vm, "first", SIMULATOR):
        (found,) = (each for each in daemon.result("devices") if each["name"] == "first")
        with holding(vm, found["node"]) as pid:
            error = refused(vm, "deprovision", "first", code=1)
            assert error["data"]["kind"] == "busy"
            assert [each["pid"] for each in error["data"]["holders"]] == [pid]
            # Netlink answers: nobody waits for anything.
            assert "first" in tool(vm, "dev", "show")
        done(vm, "deprovision", "first")


def test_a_device_of_virtio_s_driver_is_removed_with_its_interface(
    vm: Machine, daemon: Caller
) -> None:
    with made_by_the_tool(vm, "first", SIMULATOR):
        vm.ask("write", path="/sys/bus/vdpa/drivers/vhost_vdpa/unbind", text="first")
        assert done(vm, "deprovision", "first")["name"] == "first"


def test_no_such_device_to_remove(vm: Machine) -> None:
    assert refused(vm, "deprovision", "vdpa99", code=9)["data"]["kind"] == "no-such-device"


def test_without_the_capability_the_kernel_s_refusal_says_what_is_missing(
    vm: Machine, daemon: Caller
) -> None:
    source = listing_of(vm, daemon, "sim0")
    ended = vm.run(
        *("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-m"),
        *("vdpad.cli.vdpactl", "provision", "--like", source, "--mgmtdev", SIMULATOR),
        *("--name", "second"),
    )
    assert ended.code == 1
    assert "not-allowed" in ended.err
    assert "CAP_NET_ADMIN" in ended.err
    assert "second" not in tool(vm, "dev", "show")
