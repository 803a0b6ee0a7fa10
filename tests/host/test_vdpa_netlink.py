"""What the kernel's replies mean, and what this machine's own kernel says."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.host import children
from vdpad.errors import VdpadError
from vdpad.host import sysfs, vdpa_asker, vdpa_netlink
from vdpad.host.vdpa import (
    ManagementDevice,
    NetlinkRefused,
    NoSuchVdpaDevice,
    NotANetworkDevice,
    NotLoaded,
    OddReply,
    VdpaConfig,
    VdpaDevice,
    VendorStatistic,
    VendorStatistics,
)
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.features import Feature

Attributes = dict[str, int | str]

SIM0: Attributes = {
    "MGMTDEV_DEV_NAME": "vdpasim_net",
    "DEV_NAME": "sim0",
    "DEV_ID": 1,
    "DEV_VENDOR_ID": 0,
    "DEV_MAX_VQS": 3,
    "DEV_MAX_VQ_SIZE": 256,
    "DEV_MIN_VQ_SIZE": 1,
}
SIM0_CONFIG: Attributes = {
    "DEV_NAME": "sim0",
    "DEV_ID": 1,
    "DEV_FEATURES": 0x308830028,
    "DEV_NET_CFG_MTU": 1500,
    "DEV_NET_CFG_MACADDR": "52:54:00:00:00:01",
    "DEV_NET_STATUS": 1,
}
GONE = {"errno": 19, "words": "vdpa: device not found"}


def _kernel(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
    """A kernel that gives these answers: replies as dicts, or a fault."""
    said = [
        each if isinstance(each, dict) else {"replies": [list(reply.items()) for reply in each]}
        for each in answers
    ]
    monkeypatch.setattr(vdpa_asker, "COMMAND", children.command(children.saying(*said)))


def _without(attributes: Attributes, name: str) -> Attributes:
    return {key: value for key, value in attributes.items() if key != name}


# --- what replies mean ---


async def test_management_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    pci: Attributes = {
        "MGMTDEV_BUS_NAME": "pci",
        "MGMTDEV_DEV_NAME": "0000:00:03.0",
        "MGMTDEV_SUPPORTED_CLASSES": 1 << 1,
        "DEV_MGMTDEV_MAX_VQS": 65,
        "DEV_SUPPORTED_FEATURES": mask_of([Feature.MAC, Feature.VERSION_1, Feature.SPEED_DUPLEX]),
    }
    before_5_17: Attributes = {
        "MGMTDEV_DEV_NAME": "vdpasim_blk",
        "MGMTDEV_SUPPORTED_CLASSES": 1 << 2 | 1 << 63,
    }
    _kernel(monkeypatch, [pci, before_5_17])
    found = await vdpa_netlink.management_devices()
    assert found == (
        ManagementDevice(
            bus="pci",
            name="0000:00:03.0",
            supported_classes=frozenset({1}),
            max_vqs=65,
            features=frozenset({Feature.MAC, Feature.VERSION_1, Feature.SPEED_DUPLEX}),
        ),
        ManagementDevice(None, "vdpasim_blk", frozenset({2, 63}), None, None),
    )
    assert [each.handle for each in found] == ["pci/0000:00:03.0", "vdpasim_blk"]


async def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    block = SIM0 | {"DEV_NAME": "b", "DEV_ID": 2, "MGMTDEV_BUS_NAME": "pci"}
    _kernel(monkeypatch, [SIM0, _without(block, "DEV_MIN_VQ_SIZE")])
    assert await vdpa_netlink.devices() == (
        VdpaDevice("sim0", "vdpasim_net", 1, 0, 3, 256, 1),
        VdpaDevice("b", "pci/vdpasim_net", 2, 0, 3, 256, None),
    )


async def test_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [])
    assert await vdpa_netlink.devices() == ()


async def test_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [SIM0])
    assert await vdpa_netlink.device("sim0") == VdpaDevice("sim0", "vdpasim_net", 1, 0, 3, 256, 1)


async def test_a_config_before_the_driver_came(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [SIM0_CONFIG])
    assert await vdpa_netlink.config("sim0") == VdpaConfig(
        name="sim0",
        features=bits_of(0x308830028),
        negotiated=None,
        mac=bytes.fromhex("525400000001"),
        status=1,
        max_virtqueue_pairs=None,
        mtu=1500,
    )


async def test_a_config_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Attributes = {
        "DEV_NEGOTIATED_FEATURES": 1 << Feature.VERSION_1,
        "DEV_NET_CFG_MAX_VQP": 8,
    }
    _kernel(monkeypatch, [SIM0_CONFIG | used])
    found = await vdpa_netlink.config("sim0")
    assert found.negotiated == frozenset({Feature.VERSION_1})
    assert found.max_virtqueue_pairs == 8


async def test_a_config_of_which_the_kernel_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [{"DEV_NAME": "sim0", "DEV_ID": 1}])
    expected = VdpaConfig("sim0", *[None] * 6)
    assert await vdpa_netlink.config("sim0") == expected


async def test_no_features_are_not_unknown_features(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [SIM0_CONFIG | {"DEV_NEGOTIATED_FEATURES": 0}])
    assert (await vdpa_netlink.config("sim0")).negotiated == frozenset()


async def test_a_config_of_a_block_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [{"DEV_NAME": "b", "DEV_ID": 2, "DEV_FEATURES": 1}])
    with pytest.raises(NotANetworkDevice, match=r"b: .* got device ID 2"):
        await vdpa_netlink.config("b")


async def test_a_network_device_with_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, [SIM0], [SIM0_CONFIG])
    device, config = await vdpa_netlink.network_device("sim0")
    assert (device.mgmtdev, config.mtu) == ("vdpasim_net", 1500)


async def test_a_network_device_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    block = SIM0 | {"DEV_ID": 2}
    _kernel(monkeypatch, [block], [{"DEV_NAME": "sim0", "DEV_ID": 2, "DEV_FEATURES": 1}])
    with pytest.raises(NotANetworkDevice):
        await vdpa_netlink.network_device("sim0")


async def test_everything_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block device's config is not asked for; a device that went since is left out."""
    names = {"sim0": 1, "block": 2, "gone": 1, "sim1": 1}
    found = [SIM0 | {"DEV_NAME": name, "DEV_ID": class_} for name, class_ in names.items()]
    _kernel(monkeypatch, found, [SIM0_CONFIG], GONE, [SIM0_CONFIG | {"DEV_NAME": "sim1"}])
    everything = await vdpa_netlink.everything()
    assert [(device.name, config and config.name) for device, config in everything] == [
        ("sim0", "sim0"),
        ("block", None),
        ("sim1", "sim1"),
    ]


async def test_vendor_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = [
        ["DEV_NAME", "mlx0"],
        ["DEV_ID", 1],
        ["DEV_NEGOTIATED_FEATURES", 1 << Feature.MQ],
        ["DEV_NET_CFG_MAX_VQP", 4],
        ["DEV_QUEUE_INDEX", 3],
        ["DEV_VENDOR_ATTR_NAME", "received_desc"],
        ["DEV_VENDOR_ATTR_VALUE", 1 << 63],
        ["DEV_VENDOR_ATTR_NAME", "completed_desc"],
        ["DEV_VENDOR_ATTR_VALUE", 7],
    ]
    _kernel(monkeypatch, {"replies": [reply]})
    assert await vdpa_netlink.vendor_statistics("mlx0", 3) == VendorStatistics(
        name="mlx0",
        queue_index=3,
        negotiated=frozenset({Feature.MQ}),
        max_virtqueue_pairs=4,
        statistics=(
            VendorStatistic("received_desc", 1 << 63),
            VendorStatistic("completed_desc", 7),
        ),
    )


async def test_a_driver_that_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, {"errno": 95, "words": "Operation not supported"})
    with pytest.raises(NetlinkRefused) as refused:
        await vdpa_netlink.vendor_statistics("sim0", 0)
    assert (refused.value.code, refused.value.words) == ("ENOTSUP", "Operation not supported")


# --- what they cannot mean ---


@pytest.mark.parametrize("name", SIM0)
async def test_a_device_without_what_it_must_have(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kernel(monkeypatch, [_without(SIM0, name)])
    if name == "DEV_MIN_VQ_SIZE":
        assert (await vdpa_netlink.device("sim0")).min_vq_size is None
        return
    with pytest.raises(OddReply, match=f"expected {name} in"):
        await vdpa_netlink.device("sim0")


@pytest.mark.parametrize("name", SIM0)
async def test_a_device_with_something_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = 5 if isinstance(SIM0[name], str) else "five"
    _kernel(monkeypatch, [SIM0 | {name: other}])
    with pytest.raises(OddReply, match=f"expected {name} as"):
        await vdpa_netlink.device("sim0")


@pytest.mark.parametrize("replies", [[], [SIM0, SIM0]])
async def test_not_one_reply_about_one_device(
    replies: list[Attributes], monkeypatch: pytest.MonkeyPatch
) -> None:
    _kernel(monkeypatch, replies)
    with pytest.raises(OddReply, match="expected one reply"):
        await vdpa_netlink.device("sim0")


async def test_a_statistic_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    reply: Attributes = {
        "DEV_NAME": "mlx0",
        "DEV_NEGOTIATED_FEATURES": 0,
        "DEV_QUEUE_INDEX": 0,
        "DEV_VENDOR_ATTR_NAME": "received_desc",
    }
    _kernel(monkeypatch, [reply])
    with pytest.raises(OddReply, match="a value for each of 1 statistics, got 0"):
        await vdpa_netlink.vendor_statistics("mlx0", 0)


_NAMES = st.sampled_from([*SIM0, *SIM0_CONFIG, "DEV_VENDOR_ATTR_NAME", "DEV_VENDOR_ATTR_VALUE"])
_VALUES = st.integers(0, (1 << 64) - 1) | st.text() | st.just("52:54:00:00:00:01")


@given(st.lists(st.tuples(_NAMES, _VALUES)))
def test_any_reply_has_a_meaning_or_an_error_of_ours(reply: list[tuple[str, int | str]]) -> None:
    readers: list[Callable[[Any], object]] = [
        vdpa_netlink._management_device,
        vdpa_netlink._device,
        vdpa_netlink._config,
    ]
    for read in readers:
        try:
            read(dict(reply))
        except VdpadError:
            continue
    try:
        vdpa_netlink._vendor_statistics(reply)
    except VdpadError:
        return


# --- names ---


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../sim0", "a/b", "/", "a\0b", "x" * 256, "\ud800"]
)
@pytest.mark.parametrize(
    "ask",
    [
        vdpa_netlink.device,
        vdpa_netlink.config,
        lambda name: vdpa_netlink.vendor_statistics(name, 0),
    ],
)
async def test_what_cannot_be_a_name_is_not_asked_for(
    name: str, ask: Callable[[str], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vdpa_asker, "COMMAND", ("/nonexistent",))
    with pytest.raises(NoSuchVdpaDevice) as refused:
        await ask(name)
    str(refused.value).encode()
    assert len(str(refused.value)) < 300


# --- this machine ---


async def test_this_kernel_tells_what_it_has() -> None:
    """Where it has the family, what sysfs shows too; else that it has none, and what to do."""
    outcomes = await asyncio.gather(
        vdpa_netlink.management_devices(),
        vdpa_netlink.devices(),
        vdpa_netlink.everything(),
        return_exceptions=True,
    )
    if isinstance(outcomes[0], NotLoaded):
        assert {type(each) for each in outcomes} == {NotLoaded}
        assert "vdpa is not loaded on this host" in str(outcomes[0])
        assert "modprobe vdpa" in str(outcomes[0])
        return
    _, devices, everything = outcomes
    assert isinstance(devices, tuple)
    assert isinstance(everything, tuple)
    assert devices == tuple(device for device, _ in everything)
    assert {each.name for each in devices} <= set(sysfs.names())


async def test_this_kernel_does_not_know_a_device() -> None:
    with pytest.raises((NoSuchVdpaDevice, NotLoaded)):
        await vdpa_netlink.device("there-is-no-such-device")


def test_whoever_asks_does_not_import_pyroute2() -> None:
    code = "import sys, vdpad.host.vdpa_netlink; sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
