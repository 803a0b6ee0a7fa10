"""vDPA devices made and removed over netlink, family "vdpa". Both want CAP_NET_ADMIN.

A management device takes some of a new device's settings and refuses the others, by its driver:
vp_vdpa and ifcvf take the features alone, vdpa_sim_net also the MAC address and the MTU, mlx5_vdpa
all four. The kernel does not tell which, but for refusing a request with one that it does not take,
before it does anything. So what is not taken is left out, as little as can be; whether the device
has it of itself, who asked must look.

Each function has a conversation of its own and raises what those of `vdpa_netlink` do. A driver may
take seconds to make a device. Cancellation ends the conversation; a request that was sent the
kernel may fulfil all the same.

Source: Linux drivers/vdpa/vdpa.c (vdpa_nl_cmd_dev_add_set_doit, vdpa_nl_cmd_dev_del_set_doit) and
config_attr_mask in the drivers.
"""

import errno
from collections.abc import Iterator
from itertools import combinations

from vdpad.host.vdpa import (
    ManagementDevice,
    NameInUse,
    NetlinkRefused,
    WantedDevice,
    check_name,
)
from vdpad.host.vdpa_asker import Asker, asking
from vdpad.virtio.bits import mask_of
from vdpad.virtio.commands import format_mac

Attributes = dict[str, int | str]

_NOT_TAKEN = errno.errorcode[errno.EOPNOTSUPP]
_IN_USE = errno.errorcode[errno.EEXIST]

_SETTINGS = {
    "DEV_NET_CFG_MACADDR": "mac",
    "DEV_NET_CFG_MAX_VQP": "max_virtqueue_pairs",
    "DEV_NET_CFG_MTU": "mtu",
}


async def make(
    name: str, on: ManagementDevice, wanted: WantedDevice, seconds: float = 30.0
) -> frozenset[str]:
    """Makes a network device.

    Args:
        name: what it shall be called.
        on: the management device that makes it.
        wanted: what it shall be; always with these features, never without.
        seconds: how long the kernel may take.

    Returns:
        the fields of `wanted` that the management device does not take, and so were left out.

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
    where["DEV_FEATURES"] = mask_of(wanted.features)
    async with asking(seconds) as asker:
        try:
            return await _make(asker, where, _settings(wanted))
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


def _settings(wanted: WantedDevice) -> Attributes:
    settings: Attributes = {}
    if wanted.mac is not None:
        settings["DEV_NET_CFG_MACADDR"] = format_mac(wanted.mac)
    if wanted.max_virtqueue_pairs is not None:
        settings["DEV_NET_CFG_MAX_VQP"] = wanted.max_virtqueue_pairs
    if wanted.mtu is not None:
        settings["DEV_NET_CFG_MTU"] = wanted.mtu
    return settings


async def _make(asker: Asker, where: Attributes, settings: Attributes) -> frozenset[str]:
    refusal: NetlinkRefused | None = None
    for left_out in _fewest_first(settings):
        taken = {name: value for name, value in settings.items() if name not in left_out}
        try:
            await asker.ask("DEV_NEW", **where, **taken)
        except NetlinkRefused as error:
            if error.code != _NOT_TAKEN:
                raise
            # What the driver says of the whole is worth more than of what was left of it.
            refusal = refusal or error
        else:
            return frozenset(_SETTINGS[each] for each in left_out)
    assert refusal is not None
    raise refusal


def _fewest_first(settings: Attributes) -> Iterator[tuple[str, ...]]:
    for count in range(len(settings) + 1):
        yield from combinations(settings, count)
