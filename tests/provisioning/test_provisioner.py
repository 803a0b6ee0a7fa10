"""Devices made and removed on a kernel of ours, from the look to the comparison."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.vdpa_kernel import Host
from tests.provisioning import made
from vdpad.api.devices import listed
from vdpad.host import sysfs, vdpa_asker, vdpa_netlink
from vdpad.host.in_use import InUse, MayBeInUse
from vdpad.host.vdpa import (
    NameInUse,
    NetlinkForbidden,
    NoSuchManagementDevice,
    NoSuchVdpaDevice,
    VdpaConfig,
    WantedDevice,
)
from vdpad.provisioning import provisioner
from vdpad.provisioning.listing import ListedConfig, ListedDevice, read_listing
from vdpad.provisioning.provisioner import CannotBeLike, deprovision, order, provision
from vdpad.provisioning.wanted import Original
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import Feature

SIM_FEATURES = bits_of(0x308830028)
MAC = bytes.fromhex("525400000007")
CARD = "pci/0000:00:03.0"
CARD_MAC = bytes.fromhex("52540000000a")


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Its devices are nobody's: no driver has them."""
    kernel = Host.with_simulator(tmp_path / "kernel.json")
    monkeypatch.setattr(vdpa_asker, "COMMAND", kernel.command)
    monkeypatch.setattr(sysfs, "node_of", lambda _name: None)
    return kernel


def _like(name: str = "vdpa0", features: Any = SIM_FEATURES, **config: Any) -> Original:
    fields = ListedConfig.model_validate({"mac": MAC, "status": 1, "mtu": 9000} | config)
    return Original(ListedDevice(name=name, features=frozenset(features), config=fields), None)


async def _made(original: Original, mgmtdev: str = "vdpasim_net", name: str | None = None) -> None:
    await provision(await order(original, mgmtdev, name))


# --- the device ---


async def test_a_device_like_another_is_equal_to_it(host: Host) -> None:
    ordered = await order(_like(), "vdpasim_net", None)
    assert ordered.wanted == WantedDevice(SIM_FEATURES, MAC, None, 9000)
    assert host.asked("DEV_NEW") == []
    came = await provision(ordered)
    assert came.config == VdpaConfig("vdpa0", SIM_FEATURES, None, MAC, 1, None, 9000)
    assert came.device.mgmtdev == "vdpasim_net"
    assert came.asked == ordered.wanted


async def test_a_device_like_the_one_that_came_of_it_is_equal_to_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = await provision(await order(_like(), "vdpasim_net", None))
    monkeypatch.setattr(sysfs, "driver_of", lambda _name: None)
    said = f"[{listed(first.device, first.config).model_dump_json()}]"
    original = Original(read_listing(said.encode())[0], None)
    second = await provision(await order(original, "vdpasim_net", "vdpa1"))
    assert second.asked == first.asked


async def test_what_a_card_does_not_take_is_left_to_it() -> None:
    features = bits_of(0x300020020) | {Feature.MQ, Feature.CTRL_VQ}
    original = _like(features=features, mac=CARD_MAC, mtu=None, status=None, max_virtqueue_pairs=4)
    ordered = await order(original, CARD, "vp1")
    came = await provision(ordered)
    assert came.asked == WantedDevice(features, None, None, None)
    assert came.config.mac == CARD_MAC


async def test_what_came_out_otherwise_is_removed_again() -> None:
    original = _like(features=bits_of(0x300000020), mtu=None, status=None)
    with pytest.raises(CannotBeLike, match="vp1 came out otherwise, and was removed") as caught:
        await _made(original, CARD, "vp1")
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == ("config.mac", "differs")
    assert "52:54:00:00:00:0a" in problem.message
    assert await vdpa_netlink.devices() == ()


async def test_what_came_out_otherwise_and_is_open_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, _node: Path) -> None:
        raise InUse(name, [sysfs.Holder(7, "qemu")])

    monkeypatch.setattr(sysfs, "node_of", lambda _name: Path("/dev/vhost-vdpa-0"))
    monkeypatch.setattr(provisioner, "refuse_one_in_use", refuse)
    original = _like(features=bits_of(0x300000020), mtu=None, status=None)
    with pytest.raises(CannotBeLike, match=r"is still there, as vp1 is open in qemu \(pid 7\)"):
        await _made(original, CARD, "vp1")
    assert [each.name for each in await vdpa_netlink.devices()] == ["vp1"]


# --- what does not fit ---


async def test_all_that_does_not_fit_is_told_and_nothing_is_made(host: Host) -> None:
    original = _like(features=SIM_FEATURES | {Feature.MQ, 41}, max_virtqueue_pairs=4)
    with pytest.raises(CannotBeLike) as caught:
        await order(original, "vdpasim_net", None)
    paths = [each.path for each in caught.value.problems]
    assert paths == ["features", "config.max_virtqueue_pairs"]
    assert "MQ, ADMIN_VQ" in str(caught.value)
    assert host.asked("DEV_NEW") == []


# Each makes and removes a device, by six processes.
@settings(max_examples=10)
@given(st.data())
async def test_what_is_wanted_is_made_or_told_to_be_impossible(data: st.DataObject) -> None:
    """No driver's refusal is left to be found out: the kernel of ours has Linux's rules."""
    features = data.draw(made.FEATURES.map(lambda some: some & SIM_FEATURES | {32, 33}))
    config = data.draw(made.configs(st.just(features)))
    original = _like(features=features, mac=config.mac, mtu=config.mtu, status=config.status)
    await _made(original, "vdpasim_net", "vdpa0")
    status = 1 if Feature.STATUS in features else None
    assert await vdpa_netlink.config("vdpa0") == replace(config, name="vdpa0", status=status)
    await deprovision("vdpa0")


async def test_a_management_device_that_is_not_there() -> None:
    with pytest.raises(NoSuchManagementDevice, match=f"this host has vdpasim_net, {CARD}"):
        await order(_like(), "pci/0000:00:04.0", None)


async def test_hardware_is_given_to_one_device() -> None:
    original = _like(features=bits_of(0x300000020), mac=CARD_MAC, mtu=None, status=None)
    await _made(original, CARD, "vp1")
    with pytest.raises(CannotBeLike, match="vp1 is there already"):
        await order(original, CARD, "vp2")


async def test_without_the_capability_all_that_does_not_fit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host.with_simulator(tmp_path / "incapable.json", capable=False)
    monkeypatch.setattr(vdpa_asker, "COMMAND", host.command)
    with pytest.raises(CannotBeLike):
        await order(_like(features=SIM_FEATURES | {0}), "vdpasim_net", None)
    with pytest.raises(NetlinkForbidden):
        await _made(_like())


# --- names ---


async def test_a_device_is_called_as_on_its_source_where_nothing_else_is_said() -> None:
    assert (await order(_like("net7"), "vdpasim_net", None)).name == "net7"
    assert (await order(_like("net7"), "vdpasim_net", "vdpa7")).name == "vdpa7"


async def test_one_without_a_name_has_the_first_that_is_free() -> None:
    for expected in ("vdpa0", "vdpa1"):
        ordered = await order(_like(""), "vdpasim_net", None)
        assert ordered.name == expected
        await provision(ordered)


async def test_a_name_in_use_is_refused_before_anything_is_made(host: Host) -> None:
    await _made(_like())
    with pytest.raises(NameInUse):
        await order(_like(), "vdpasim_net", None)
    assert len(host.asked("DEV_NEW")) == 1


async def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(NoSuchVdpaDevice):
        await order(_like("../vdpa"), "vdpasim_net", None)


# --- removing ---


async def test_a_device_is_removed_and_told() -> None:
    await _made(_like())
    assert (await deprovision("vdpa0")).mgmtdev == "vdpasim_net"
    with pytest.raises(NoSuchVdpaDevice):
        await deprovision("vdpa0")


async def test_one_that_may_be_open_is_not_asked_to_be_removed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _made(_like())
    monkeypatch.setattr(sysfs, "node_of", lambda _name: Path("/dev/no-such-node"))
    with pytest.raises(MayBeInUse):
        await deprovision("vdpa0")
    assert host.asked("DEV_DEL") == []
