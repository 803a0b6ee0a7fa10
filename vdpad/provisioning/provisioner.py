"""Devices provisioned and removed, in one direction: look, fit, make, find again, compare.

Nothing is made before everything is known to fit as far as the kernel tells. What was made and came
out otherwise is removed again, so that a device that is there is as it was wanted; one that a
process has opened meanwhile is left to it, and that is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from vdpad.errors import VdpadError
from vdpad.host import sysfs, vdpa_making, vdpa_netlink
from vdpad.host.in_use import InUse, MayBeInUse, refuse_one_in_use
from vdpad.host.vdpa import (
    ManagementDevice,
    NameInUse,
    NoSuchManagementDevice,
    VdpaConfig,
    VdpaDevice,
    WantedDevice,
    check_name,
)
from vdpad.provisioning.fitting import differences, misfits
from vdpad.provisioning.wanted import Original, state_problems, wanted_like
from vdpad.state.problems import Problem, summary


class CannotBeLike(VdpadError):
    """A device that cannot be made to be like its source: all reasons why not."""

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        """Takes a sentence, to which the first problem is added."""
        super().__init__(f"{message}: {summary(problems)}")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class DeviceOrder:
    """A device that can be made, as far as the kernel tells."""

    name: str
    maker: ManagementDevice
    wanted: WantedDevice


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A device that was made, and is as it was wanted."""

    device: VdpaDevice
    config: VdpaConfig
    asked: WantedDevice
    """What was asked of the kernel: None too in what the management device does not take."""


async def order(original: Original, mgmtdev: str, name: str | None) -> DeviceOrder:
    """Looks whether a device can be made; makes nothing, and needs no privilege.

    Args:
        original: what it is to be like.
        mgmtdev: the management device, as `vdpa mgmtdev show` names it.
        name: what it shall be called; None for what it is called on the source, or where that is
            not known for the first of vdpa0, vdpa1, … that is free.

    Raises:
        NoSuchManagementDevice, NameInUse, NoSuchVdpaDevice: there is none, it is, it is no name.
        CannotBeLike: something does not fit.
        VdpaError: the kernel does not tell.
    """
    maker = await _maker(mgmtdev)
    devices = await vdpa_netlink.devices()
    called = _name(name, original, [each.name for each in devices])
    wanted = wanted_like(original, maker.features or frozenset())
    problems = list(misfits(wanted, maker, devices))
    if original.state is not None:
        problems += state_problems(original.state, wanted)
    if problems:
        raise CannotBeLike(f"{maker.handle} cannot make such a device", problems)
    return DeviceOrder(called, maker, wanted)


async def provision(ordered: DeviceOrder) -> Provisioned:
    """Makes a device, and looks at what came of it. Wants CAP_NET_ADMIN.

    Cancelled or interrupted, it may leave a device that nobody has looked at.

    Raises:
        CannotBeLike: it came out otherwise.
        VdpaError: it could not be made, or not be looked at.
    """
    asked = await vdpa_making.make(ordered.name, ordered.maker, ordered.wanted)
    device, config = await vdpa_netlink.network_device(ordered.name)
    problems = tuple(differences(ordered.wanted, config))
    if problems:
        became = await _removed_again(ordered.name)
        raise CannotBeLike(f"{ordered.name} came out otherwise, and {became}", problems)
    return Provisioned(device, config, asked)


async def deprovision(name: str) -> VdpaDevice:
    """Removes a device that no process has open, and tells what it was. Wants CAP_NET_ADMIN.

    Raises:
        NoSuchVdpaDevice: there is none of this name.
        InUse: a process has it.
        MayBeInUse: it cannot be told whether one does.
        VdpaError: the kernel does not remove it.
    """
    device = await vdpa_netlink.device(name)
    await _remove(name)
    return device


async def _maker(handle: str) -> ManagementDevice:
    known = await vdpa_netlink.management_devices()
    for each in known:
        if each.handle == handle:
            return each
    raise NoSuchManagementDevice(handle, [each.handle for each in known])


def _name(name: str | None, original: Original, taken: Sequence[str]) -> str:
    wanted = name or (original.device and original.device.name)
    if not wanted:
        return next(free for at in count() if (free := f"vdpa{at}") not in taken)
    check_name(wanted)
    if wanted in taken:
        raise NameInUse(wanted)
    return wanted


async def _removed_again(name: str) -> str:
    try:
        await _remove(name)
    except (InUse, MayBeInUse) as error:
        return f"is still there, as {error}"
    return "was removed again"


async def _remove(name: str) -> None:
    node = sysfs.node_of(name)
    if node is not None:
        refuse_one_in_use(name, node)
    await vdpa_making.remove(name)
