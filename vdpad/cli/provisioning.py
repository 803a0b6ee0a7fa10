"""The commands that make vDPA devices of this host and remove them; they ask the kernel, no daemon.

Each takes the command line and gives its result as plain values. What ends one is told as the
daemon tells its refusals.
"""

import io
from argparse import Namespace
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from vdpad.api.devices import listed
from vdpad.cli import show_devices
from vdpad.cli.failures import CannotProvision, InvalidState, Usage
from vdpad.cli.interrupts import run_interruptibly
from vdpad.cli.progress import shown
from vdpad.cli.state_files import choose, read_file, state_of
from vdpad.daemon.faults import refusal_of
from vdpad.errors import VdpadError
from vdpad.host import vdpa_netlink
from vdpad.host.in_use import InUse, MayBeInUse
from vdpad.host.vdpa import NETWORK, ManagementDevice, NameInUse, NoSuchManagementDevice
from vdpad.host.vdpa_asker import one_conversation
from vdpad.provisioning import provisioner
from vdpad.provisioning.listing import (
    MAX_SIZE,
    BadListing,
    ListedDevice,
    is_listing,
    read_listing,
)
from vdpad.provisioning.provisioner import CannotBeLike
from vdpad.provisioning.vdpa_tool import dev_add
from vdpad.provisioning.wanted import Original
from vdpad.service.envelope import error_of
from vdpad.service.refusal import Kind, Refusal
from vdpad.state.formats import recognise
from vdpad.state.formats.recognise import Reading
from vdpad.virtio.features import FEATURES

Json = dict[str, Any]
T = TypeVar("T")

# virtio 1.4, 5 "Device Types"; the others that Linux has vDPA drivers for are called by number.
_CLASSES = {NETWORK: "net", 2: "block"}


# --- devices --management ---


def show_management(arguments: Namespace) -> None:
    """Has `devices` tell what devices can be made on here, instead of a daemon's devices.

    Raises:
        Usage: a daemon is to be asked.
    """
    _refuse_daemon(arguments)
    arguments.run = _management_devices
    arguments.show = show_devices.management


def _management_devices(_arguments: Namespace) -> list[Json]:
    """Each management device, with the names of the devices that it has made."""

    async def look() -> list[Json]:
        makers = await vdpa_netlink.management_devices()
        there = await vdpa_netlink.devices()
        return [
            _management(maker, [each.name for each in there if each.mgmtdev == maker.handle])
            for maker in makers
        ]

    return _done(look())


def _management(maker: ManagementDevice, devices: Sequence[str]) -> Json:
    return {
        "mgmtdev": maker.handle,
        "classes": [_CLASSES.get(each, str(each)) for each in sorted(maker.supported_classes)],
        "max_virtqueues": maker.max_vqs,
        "features": None if maker.features is None else FEATURES.names(maker.features),
        "devices": list(devices),
    }


# --- provision, deprovision ---


def provision(arguments: Namespace) -> Json:
    """The device that was made, and the vdpa tool's command line for it.

    Raises:
        Usage: a daemon is to be asked, or what it is to be like is not one device's.
        CannotProvision: it cannot be made, or came out otherwise.
    """
    _refuse_daemon(arguments)
    original = _original(arguments)

    async def make() -> Json:
        ordered = await provisioner.order(original, arguments.mgmtdev, arguments.name)
        if arguments.dry_run:
            line = dev_add(ordered.name, ordered.maker.handle, ordered.wanted)
            return {"command": line, "device": None}
        came = await provisioner.provision(ordered)
        line = dev_add(ordered.name, ordered.maker.handle, came.asked)
        device = listed(came.device, came.config)
        return {"command": line, "device": device.model_dump(mode="json")}

    return _done(make())


def deprovision(arguments: Namespace) -> Json:
    """What the device was that is gone.

    Raises:
        Usage: a daemon is to be asked.
        CannotProvision: it is there still.
    """
    _refuse_daemon(arguments)

    async def remove() -> Json:
        device = await provisioner.deprovision(arguments.device)
        return {"name": device.name, "mgmtdev": device.mgmtdev}

    return _done(remove())


def _refuse_daemon(arguments: Namespace) -> None:
    if arguments.socket is not None or arguments.host is not None:
        raise Usage("this is done on this host, without a daemon: expected no --socket or --host")


def _done(work: Coroutine[Any, Any, T]) -> T:
    async def in_one_conversation() -> T:
        try:
            async with one_conversation():
                return await work
        finally:
            work.close()

    with shown(lambda: "waiting for the kernel"), _as_refused():
        return run_interruptibly(in_one_conversation())


@contextmanager
def _as_refused() -> Iterator[None]:
    try:
        yield
    except VdpadError as error:
        raise CannotProvision(**error_of(_refusal(error))) from error


def _refusal(error: VdpadError) -> Refusal:
    match error:
        case CannotBeLike():
            problems = [asdict(each) for each in error.problems]
            return Refusal(Kind.INCOMPATIBLE, str(error), problems=problems)
        case InUse():
            holders = [asdict(each) for each in error.holders]
            return Refusal(Kind.BUSY, str(error), holders=holders)
        case MayBeInUse():
            return Refusal(Kind.NOT_ALLOWED, str(error))
        case NameInUse():
            return Refusal(Kind.CONFLICT, str(error))
        case NoSuchManagementDevice():
            return Refusal(Kind.NO_SUCH_DEVICE, str(error))
    return refusal_of(error) or Refusal(Kind.INTERNAL, str(error))


# --- what a device is to be like ---


def _original(arguments: Namespace) -> Original:
    devices: list[ListedDevice] = []
    states = []
    for name in arguments.like:
        held = read_file(name, _listing_or_state)
        if isinstance(held, Reading):
            # A file of one state's is that guest's, whatever it calls the device.
            which = arguments.device if len(held.devices) > 1 else None
            states.append(state_of(choose(held.devices, which, name), name))
        else:
            devices.append(_chosen(_listing(held, name), arguments.device, name))
    if len(devices) > 1 or len(states) > 1:
        raise Usage(
            "expected one --like with a list of devices, one with a state, or both, got "
            f"{len(devices)} and {len(states)}"
        )
    return Original(devices[0] if devices else None, states[0] if states else None)


def _listing_or_state(file: io.BufferedReader) -> bytes | Reading:
    return file.read(MAX_SIZE + 1) if is_listing(file.peek(1)) else recognise.read(file)


def _listing(data: bytes, name: str) -> tuple[ListedDevice, ...]:
    try:
        return read_listing(data)
    except BadListing as error:
        message = f"{name}: no list of devices as `vdpactl devices --json` prints it"
        raise InvalidState(message, [asdict(each) for each in error.problems]) from error


def _chosen(devices: Sequence[ListedDevice], device: str | None, name: str) -> ListedDevice:
    fitting = [each for each in devices if device in (None, each.name)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(each.name for each in devices) or "none"
    expected = "--device to say which one" if device is None else f"a device named {device}"
    raise Usage(f"{name}: expected {expected}; network devices there: {there}")
