"""Batches of commands whose every member leaves its own trace in a device."""

from collections.abc import Collection, Sequence
from typing import Any

from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.software.net import NetDevice
from vdpad.virtio.commands import (
    Command,
    MacAddrSet,
    MacTableSet,
    MqPairsSet,
    RxAllMulti,
    RxPromisc,
    VlanAdd,
)

MAC = bytes.fromhex("525400aabbcc")
UNICAST = tuple(bytes.fromhex(f"5254000000{n:02x}") for n in range(3))
MULTICAST = (bytes.fromhex("01005e000001"),)


def vlans(count: int) -> tuple[Command, ...]:
    """The first so many VLAN ids: commands of one length."""
    return tuple(VlanAdd(vid) for vid in range(count))


def mixed(count: int) -> tuple[Command, ...]:
    """So many commands of several lengths, 6 at the least; nearly all are VLANs."""
    middle = (count - 5) // 2
    return (
        MacAddrSet(MAC),
        MqPairsSet(3),
        *vlans(middle),
        MacTableSet(UNICAST, MULTICAST),
        *(VlanAdd(vid) for vid in range(middle, count - 5)),
        RxAllMulti(True),
        RxPromisc(False),
    )


def settings_after(
    config: SoftwareConfig, commands: Sequence[Command], without: Collection[int] = ()
) -> dict[str, Any]:
    """What a device of this kind holds after these commands, but not those at these places."""
    device = NetDevice(config.features, config.net)
    for at, command in enumerate(commands):
        if at not in without:
            assert device.command(command.encode()) == 0
    return device.settings()
