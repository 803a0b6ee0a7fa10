"""vDPA devices made and removed over netlink, family "vdpa". Both want CAP_NET_ADMIN.

A management device takes some of a new device's settings and refuses the others, by its driver:
vp_vdpa and ifcvf take the features alone, vdpa_sim_net also the MAC address and the MTU, mlx5_vdpa
all four. The kernel does not tell which, but for refusing a request with one that it does not take,
before it does anything. So what is not taken is left out, as little as can be; whether the device
has it of itself, who asked must look.

Each function has a conversation and raises what those of `vdpa_netlink` do. A driver may
take seconds to make a device. Cancellation ends the conversation; a request that was sent the
kernel may fulfil all the same.

Source: Linux drivers/vdpa/vdpa.c (vdpa_nl_cmd_dev_add_set_doit, vdpa_nl_cmd_dev_del_set_doit) and
config_attr_mask in the drivers.
"""

import errno
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from vdpad.host.vdpa import (
    ManagementDevice,
    NameInUse,
    NetlinkRefused,
    WantedDevice,
    check_name,
)
from vdpad.host.vdpa_asker import Asker, asking
from vdpad.virtio.bits import mask_of
from vdpad.virtio.mac import format_mac

Attributes = dict[str, int | str]

_NOT_TAKEN = errno.errorcode[errno.EOPNOTSUPP]
_IN_USE = errno.errorcode[errno.EEXIST]

# The fields of a WantedDevice that a management device may not take.
_SETTINGS = ("mac", "max_virtqueue_pairs", "mtu")


async def make(
    name: str, on: ManagementDevice, wanted: WantedDevice, seconds: float = 30.0
) -> WantedDevice:
    """Makes a network device.

    Args:
        name: what it shall be called.
        on: the management device that makes it.
        wanted: what it shall be; always with these features, never without.
        seconds: how long the kernel may take.

    Returns:
        what was asked for: None is also what the management device does not take.

    Raises:
        NoSuchVdpaDevice: no device can be called so.
        NameInUse: one is.
        NetlinkForbidden: CAP_NET_ADMIN is missing.
        NetlinkRefused: the driver does not make such a device, and says why.
    """
    check_name(name)
    where: Attributes = {"DEV_NAME": name, "MGMTDEV_DEV_NAME": on.name}
    if on.bus is not None:
        where["MGMTDEV_BUS_NAME"] = on.bus
    async with asking(seconds) as asker:
        try:
            return await _make(asker, where, wanted)
        except NetlinkRefused as error:
            if error.code == _IN_USE:
                raise NameInUse(name) from error
            raise


async def remove(name: str, seconds: float = 30.0) -> None:
    """Removes a device, which nobody may have open: the kernel would wait until it is closed.

    Args:
        name: the device's.
        seconds: how long the kernel may take.

    Raises:
        NoSuchVdpaDevice: there is none of this name.
        NetlinkForbidden: CAP_NET_ADMIN is missing.
    """
    check_name(name)
    async with asking(seconds) as asker:
        await asker.ask("DEV_DEL", DEV_NAME=name)


async def _make(asker: Asker, where: Attributes, wanted: WantedDevice) -> WantedDevice:
    refusals: list[NetlinkRefused] = []
    for asked in _fullest_first(wanted):
        try:
            await asker.ask("DEV_NEW", **where, **_attributes(asked))
        except NetlinkRefused as error:
            if error.code != _NOT_TAKEN:
                raise
            refusals.append(error)
        else:
            return asked
    # What was said of the whole is worth more than what was said of the rest of it.
    raise NetlinkRefused(refusals[0].code, refusals[0].words)


def _fullest_first(wanted: WantedDevice) -> Iterator[WantedDevice]:
    """What is wanted, and then without what may be left out of it, as little as can be."""
    there = [each for each in _SETTINGS if getattr(wanted, each) is not None]
    for count in range(len(there) + 1):
        for left_out in combinations(there, count):
            without: dict[str, Any] = dict.fromkeys(left_out)
            yield replace(wanted, **without)


def _attributes(asked: WantedDevice) -> Attributes:
    attributes: Attributes = {"DEV_FEATURES": mask_of(asked.features)}
    if asked.mac is not None:
        attributes["DEV_NET_CFG_MACADDR"] = format_mac(asked.mac)
    if asked.max_virtqueue_pairs is not None:
        attributes["DEV_NET_CFG_MAX_VQP"] = asked.max_virtqueue_pairs
    if asked.mtu is not None:
        attributes["DEV_NET_CFG_MTU"] = asked.mtu
    return attributes
