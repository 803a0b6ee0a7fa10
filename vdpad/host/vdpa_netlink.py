"""What the kernel tells of its vDPA devices over netlink, family "vdpa".

Each function has a conversation of its own, of 0.2 s and more, and takes turns with the others; in
`vdpa_asker.one_conversation` they share one. Its time limit is for each answer of the kernel's, and
does not count the wait for the turn. Cancellation ends the conversation. All of them raise:

- NotLoaded: this network namespace has no vdpa;
- NetlinkStuck: no answer within the time limit; at once, where an earlier asker is still stuck;
- NetlinkRefused: the kernel's refusal, in its words;
- OddReply, AskerFailed: what should not happen.

Source: Linux drivers/vdpa/vdpa.c, the *_fill functions, for what each reply has.
"""

from collections.abc import Mapping
from typing import TypeVar

from vdpad.host.vdpa import (
    NETWORK,
    ManagementDevice,
    NoSuchVdpaDevice,
    NotANetworkDevice,
    OddReply,
    VdpaConfig,
    VdpaDevice,
    VendorStatistic,
    VendorStatistics,
    check_name,
    handle,
)
from vdpad.host.vdpa_asker import Asker, Reply, asking
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import FeatureSet

_Value = TypeVar("_Value", int, str)

# A reply's attributes, where none occurs twice.
_Fields = Mapping[str, int | str]


async def management_devices(seconds: float = 2.0) -> tuple[ManagementDevice, ...]:
    """All that vDPA devices can be made on."""
    async with asking(seconds) as asker:
        return tuple(_management_device(dict(each)) for each in await asker.ask("MGMTDEV_GET"))


async def devices(seconds: float = 2.0) -> tuple[VdpaDevice, ...]:
    """All vDPA devices, of every class."""
    async with asking(seconds) as asker:
        return await _devices(asker)


async def device(name: str, seconds: float = 2.0) -> VdpaDevice:
    """The vDPA device of this name.

    Raises:
        NoSuchVdpaDevice: there is none.
    """
    check_name(name)
    async with asking(seconds) as asker:
        return _device(dict(_only(await asker.ask("DEV_GET", DEV_NAME=name))))


async def config(name: str, seconds: float = 2.0) -> VdpaConfig:
    """The features and the config space of a network device.

    Raises:
        NoSuchVdpaDevice: there is none of this name.
        NotANetworkDevice: it is of another class.
    """
    check_name(name)
    async with asking(seconds) as asker:
        return await _config_of(asker, name)


async def network_device(name: str, seconds: float = 2.0) -> tuple[VdpaDevice, VdpaConfig]:
    """Both of the above, in one conversation.

    Raises:
        NoSuchVdpaDevice: there is none of this name.
        NotANetworkDevice: it is of another class.
    """
    check_name(name)
    async with asking(seconds) as asker:
        found = _device(dict(_only(await asker.ask("DEV_GET", DEV_NAME=name))))
        return found, await _config_of(asker, name)


async def everything(seconds: float = 2.0) -> tuple[tuple[VdpaDevice, VdpaConfig | None], ...]:
    """All vDPA devices, and with the network devices among them their config.

    The configs are asked for one by one: the kernel's own list ends at the first device of a class
    that it has no words for.
    """
    found: list[tuple[VdpaDevice, VdpaConfig | None]] = []
    async with asking(seconds) as asker:
        for each in await _devices(asker):
            try:
                its = await _config_of(asker, each.name) if each.device_id == NETWORK else None
            except NoSuchVdpaDevice:
                continue  # removed since
            found.append((each, its))
    return tuple(found)


async def vendor_statistics(name: str, queue_index: int, seconds: float = 2.0) -> VendorStatistics:
    """What the vendor counts on one virtqueue of a network device. Wants CAP_NET_ADMIN.

    Args:
        name: the device's.
        queue_index: 0 … 0x8000.
        seconds: how long the kernel may take.

    Raises:
        NoSuchVdpaDevice: there is none of this name.
        NetlinkRefused: ENOTSUP, the driver counts nothing, or it is no network device; EAGAIN,
            no features are negotiated; EPERM; for a queue that it does not have, ERANGE or the
            driver's own choice.
    """
    check_name(name)
    async with asking(seconds) as asker:
        replies = await asker.ask("DEV_VSTATS_GET", DEV_NAME=name, DEV_QUEUE_INDEX=queue_index)
        return _vendor_statistics(_only(replies))


async def _devices(asker: Asker) -> tuple[VdpaDevice, ...]:
    return tuple(_device(dict(each)) for each in await asker.ask("DEV_GET"))


async def _config_of(asker: Asker, name: str) -> VdpaConfig:
    return _config(dict(_only(await asker.ask("DEV_CONFIG_GET", DEV_NAME=name))))


def _only(replies: list[Reply]) -> Reply:
    if len(replies) != 1:
        raise OddReply(f"expected one reply about one device, got {len(replies)}")
    return replies[0]


def _management_device(reply: _Fields) -> ManagementDevice:
    classes = _required(reply, "MGMTDEV_SUPPORTED_CLASSES", int)
    return ManagementDevice(
        bus=_optional(reply, "MGMTDEV_BUS_NAME", str),
        name=_required(reply, "MGMTDEV_DEV_NAME", str),
        supported_classes=bits_of(classes),
        max_vqs=_optional(reply, "DEV_MGMTDEV_MAX_VQS", int),
        features=_features(reply, "DEV_SUPPORTED_FEATURES"),
    )


def _device(reply: _Fields) -> VdpaDevice:
    bus = _optional(reply, "MGMTDEV_BUS_NAME", str)
    mgmtdev = _required(reply, "MGMTDEV_DEV_NAME", str)
    return VdpaDevice(
        name=_required(reply, "DEV_NAME", str),
        mgmtdev=handle(bus, mgmtdev),
        device_id=_required(reply, "DEV_ID", int),
        vendor_id=_required(reply, "DEV_VENDOR_ID", int),
        max_vqs=_required(reply, "DEV_MAX_VQS", int),
        max_vq_size=_required(reply, "DEV_MAX_VQ_SIZE", int),
        min_vq_size=_optional(reply, "DEV_MIN_VQ_SIZE", int),
    )


def _config(reply: _Fields) -> VdpaConfig:
    name = _required(reply, "DEV_NAME", str)
    device_id = _required(reply, "DEV_ID", int)
    if device_id != NETWORK:
        raise NotANetworkDevice(
            f"{name}: expected a network device (device ID {NETWORK}), got device ID {device_id}"
        )
    return VdpaConfig(
        name=name,
        features=_features(reply, "DEV_FEATURES"),
        negotiated=_features(reply, "DEV_NEGOTIATED_FEATURES"),
        mac=_mac(reply),
        status=_optional(reply, "DEV_NET_STATUS", int),
        max_virtqueue_pairs=_optional(reply, "DEV_NET_CFG_MAX_VQP", int),
        mtu=_optional(reply, "DEV_NET_CFG_MTU", int),
    )


def _vendor_statistics(reply: Reply) -> VendorStatistics:
    fields = dict(reply)
    return VendorStatistics(
        name=_required(fields, "DEV_NAME", str),
        queue_index=_required(fields, "DEV_QUEUE_INDEX", int),
        negotiated=bits_of(_required(fields, "DEV_NEGOTIATED_FEATURES", int)),
        max_virtqueue_pairs=_optional(fields, "DEV_NET_CFG_MAX_VQP", int),
        statistics=_statistics(reply),
    )


def _statistics(reply: Reply) -> tuple[VendorStatistic, ...]:
    # Each name is followed by its value.
    names = [value for name, value in reply if name == "DEV_VENDOR_ATTR_NAME"]
    values = [value for name, value in reply if name == "DEV_VENDOR_ATTR_VALUE"]
    if len(names) != len(values):
        raise OddReply(f"expected a value for each of {len(names)} statistics, got {len(values)}")
    return tuple(
        VendorStatistic(str(name), int(value)) for name, value in zip(names, values, strict=True)
    )


def _required(reply: _Fields, name: str, kind: type[_Value]) -> _Value:
    value = _optional(reply, name, kind)
    if value is None:
        raise OddReply(
            f"expected {name} in the kernel's reply, got {', '.join(reply) or 'nothing'}"
        )
    return value


def _optional(reply: _Fields, name: str, kind: type[_Value]) -> _Value | None:
    value = reply.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise OddReply(f"expected {name} as {kind.__name__}, got {type(value).__name__}")


def _features(reply: _Fields, name: str) -> FeatureSet | None:
    mask = _optional(reply, name, int)
    return None if mask is None else bits_of(mask)


def _mac(reply: _Fields) -> bytes | None:
    text = _optional(reply, "DEV_NET_CFG_MACADDR", str)
    return None if text is None else bytes.fromhex(text.replace(":", ""))
