"""Devices made and removed: what is asked of the kernel, and what its refusals mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.host import children
from tests.host.vdpa_kernel import Host
from vdpad.host import vdpa_asker, vdpa_making, vdpa_netlink
from vdpad.host.vdpa import (
    ManagementDevice,
    NameInUse,
    NetlinkForbidden,
    NetlinkRefused,
    NoSuchVdpaDevice,
    VdpaConfig,
    WantedDevice,
)
from vdpad.virtio.bits import bits_of, mask_of

SIM_FEATURES = bits_of(0x308830028)
MAC = bytes.fromhex("525400000007")
SIMULATOR = ManagementDevice(None, "vdpasim_net", frozenset({1}), 3, SIM_FEATURES)
CARD = ManagementDevice("pci", "0000:00:03.0", frozenset({1}), 9, bits_of(0x300420020))
WANTED = WantedDevice(SIM_FEATURES, MAC, None, 9000)
UNSUPPORTED = {"errno": 95, "words": "vdpa: Some provided attributes are not supported: 0x1400"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    kernel = Host.with_simulator(tmp_path / "kernel.json")
    monkeypatch.setattr(vdpa_asker, "COMMAND", kernel.command)
    return kernel


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
    monkeypatch.setattr(vdpa_asker, "COMMAND", children.command(children.saying(*answers)))


# --- make ---


async def test_all_that_is_wanted_is_asked_for_in_one_request(host: Host) -> None:
    assert await vdpa_making.make("vdpa7", SIMULATOR, WANTED) == WANTED
    assert host.asked("DEV_NEW") == [
        {
            "DEV_NAME": "vdpa7",
            "MGMTDEV_DEV_NAME": "vdpasim_net",
            "DEV_FEATURES": 0x308830028,
            "DEV_NET_CFG_MACADDR": "52:54:00:00:00:07",
            "DEV_NET_CFG_MTU": 9000,
        }
    ]
    assert await vdpa_netlink.config("vdpa7") == VdpaConfig(
        "vdpa7", SIM_FEATURES, None, MAC, 1, None, 9000
    )


async def test_a_management_device_on_a_bus_is_named_with_it(host: Host) -> None:
    wanted = WantedDevice(bits_of(0x300000020), None, None, None)
    assert await vdpa_making.make("vp1", CARD, wanted) == wanted
    (asked,) = host.asked("DEV_NEW")
    assert (asked["MGMTDEV_BUS_NAME"], asked["MGMTDEV_DEV_NAME"]) == ("pci", "0000:00:03.0")


async def test_what_the_driver_does_not_take_is_left_out_and_told(host: Host) -> None:
    wanted = WantedDevice(bits_of(0x300420020), MAC, 4, None)
    asked = await vdpa_making.make("vp1", CARD, wanted)
    assert asked == WantedDevice(wanted.features, None, None, None)
    *refused, made = host.asked("DEV_NEW")
    # The features are what every driver takes, and are never left out.
    assert {each["DEV_FEATURES"] for each in (*refused, made)} == {mask_of(wanted.features)}
    assert "DEV_NET_CFG_MACADDR" not in made
    assert "DEV_NET_CFG_MAX_VQP" not in made
    assert len(refused) == 3


async def test_no_more_is_left_out_than_must_be(host: Host) -> None:
    held = host.read()
    held["makers"][0]["takes"] = ["DEV_NET_CFG_MTU"]
    host.write(held)
    assert await vdpa_making.make("vdpa7", SIMULATOR, WANTED) == replace(WANTED, mac=None)
    assert host.asked("DEV_NEW")[-1]["DEV_NET_CFG_MTU"] == 9000


async def test_a_driver_that_takes_nothing_is_told_by_its_first_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = {"errno": 95, "words": "Operation not supported"}
    _answering(monkeypatch, UNSUPPORTED, last, last, last)
    with pytest.raises(NetlinkRefused, match="Some provided attributes are not supported"):
        await vdpa_making.make("vdpa7", SIMULATOR, WANTED)


async def test_another_refusal_ends_it(host: Host) -> None:
    wanted = replace(WANTED, features=SIM_FEATURES - {3})
    with pytest.raises(NetlinkRefused, match=r"Missing features 0x8 .*EINVAL"):
        await vdpa_making.make("vdpa7", SIMULATOR, wanted)
    assert len(host.asked("DEV_NEW")) == 1


async def test_a_name_in_use(host: Host) -> None:
    await vdpa_making.make("vdpa7", SIMULATOR, WANTED)
    with pytest.raises(NameInUse, match="'vdpa7'"):
        await vdpa_making.make("vdpa7", SIMULATOR, WANTED)


async def test_a_management_device_that_has_gone_is_no_missing_device(host: Host) -> None:
    with pytest.raises(NetlinkRefused, match=r"management device \(ENODEV\)"):
        await vdpa_making.make("vdpa7", replace(SIMULATOR, name="vdpasim_blk"), WANTED)


async def test_without_the_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host.with_simulator(tmp_path / "kernel.json", capable=False)
    monkeypatch.setattr(vdpa_asker, "COMMAND", host.command)
    with pytest.raises(NetlinkForbidden, match="wants CAP_NET_ADMIN"):
        await vdpa_making.make("vdpa7", SIMULATOR, WANTED)
    with pytest.raises(NetlinkForbidden, match="wants CAP_NET_ADMIN"):
        await vdpa_making.remove("vdpa7")


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 256])
async def test_what_is_no_name_is_not_asked_for(host: Host, name: str) -> None:
    with pytest.raises(NoSuchVdpaDevice):
        await vdpa_making.make(name, SIMULATOR, WANTED)
    with pytest.raises(NoSuchVdpaDevice):
        await vdpa_making.remove(name)
    assert host.read()["asked"] == []


# --- remove ---


async def test_a_device_is_removed(host: Host) -> None:
    await vdpa_making.make("vdpa7", SIMULATOR, WANTED)
    await vdpa_making.remove("vdpa7")
    assert await vdpa_netlink.devices() == ()


async def test_there_is_none_to_remove(host: Host) -> None:
    with pytest.raises(NoSuchVdpaDevice):
        await vdpa_making.remove("vdpa7")
