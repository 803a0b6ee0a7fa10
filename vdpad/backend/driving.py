"""How a device is driven with a VMM's rings: what of it takes a thread, and what is checked before.

Each is one step for steps.py, or looks at nothing but what the front end has sent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from vdpad.backend.faults import CannotStart, SharedAddressSpace
from vdpad.backend.offer import Offer, to_look_at
from vdpad.queues import shadowed_device
from vdpad.queues.eventfds import check_eventfd
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.vhost_vdpa.errors import NoControlQueue, Unsupported
from vdpad.vhost_user.device import GuestVring, Start
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory

PlaceVrings = Callable[
    [Sequence[GuestVring], FeatureSet, GuestMemory], Mapping[int, shadowed_device.Vring]
]
"""Is given the data rings of a device that starts, the features negotiated with it and the guest's
memory; returns the rings as the device is to have them, by index."""

_INDEX_AT = 2  # of the used ring's index, behind its flags
_INDEX_SIZE = 2


def look(
    device: ShadowedDevice, *, shared_address_space: bool, follows_filter: bool = False
) -> Offer:
    """What a device is, by bringing it as far as its features. It is reset afterwards.

    Args:
        device: one that was reset.
        shared_address_space: the guest may reach the CVQ's ring.
        follows_filter: as of the offer.

    Raises:
        SharedAddressSpace: it could, and may not.
        VdpadError: it is no device for a guest.
    """
    if Feature.CTRL_VQ not in device.offered:
        raise NoControlQueue(device.offered)
    device.negotiate(to_look_at(device.offered))
    _check_isolation(device, allowed=shared_address_space)
    offer = Offer(
        device.offered,
        device.config(),
        shared_address_space,
        device.largest_ring(device.control_queue_index),
        follows_filter,
    )
    device.reset()
    return offer


def _check_isolation(device: ShadowedDevice, *, allowed: bool) -> None:
    if device.shares_address_space and not allowed:
        raise SharedAddressSpace(
            f"{device.name}: expected a device whose CVQ can have an address space of its own, its "
            "driver has one for all queues, so that the guest's descriptors could name our ring; "
            "allow it with --shared-address-space if you trust the guest"
        )


def negotiate(device: ShadowedDevice, offer: Offer, guest: FeatureSet) -> FeatureSet:
    """From a reset to FEATURES_OK, for a guest with these features; as `bring_up`."""
    features = offer.for_device(guest)
    device.negotiate(features)
    # Which queue is the CVQ, and so what it shares, goes by the features.
    _check_isolation(device, allowed=offer.may_share_address_space)
    return features


def bring_up(
    device: ShadowedDevice,
    offer: Offer,
    start: Start,
    config_call: int,
    place: PlaceVrings,
) -> FeatureSet:
    """From a reset to DRIVER_OK with the CVQ alone.

    Args:
        device: to which `look` has been.
        offer: what that gave.
        start: the front end's rings.
        config_call: the eventfd for the device's config interrupts.
        place: says how the device is given the data rings.

    Returns:
        the features negotiated with the device.

    Raises:
        VdpadError: it cannot be with these rings. The device is to be reset.
    """
    features = negotiate(device, offer, start.features)
    device.set_config_call(config_call)
    shadowed = control_vring(start, device.control_queue_index)
    data = [vring for vring in start.vrings if vring is not shadowed]
    for index, placed in place(data, features, start.memory).items():
        if index >= device.control_queue_index:
            raise CannotStart(
                f"expected data queues below {device.control_queue_index}, got ring {index}"
            )
        set_vring(device, index, placed)
    device.start()
    return features


def left_at(start: Start, bases: Mapping[int, int]) -> Start:
    """A start with rings that a device has left; where it does not tell, the used rings do."""
    vrings = (
        replace(
            each,
            base=bases[each.index] if each.index in bases else used_index(start.memory, each),
        )
        for each in start.vrings
    )
    return replace(start, vrings=tuple(vrings))


def as_rings_stand(start: Start) -> Start:
    """A start with the bases that the used rings tell, where the front end says 0.

    One whose back end was killed may know no better, and says 0 of a ring that has been used
    (DPDK's virtio-user with server=1 does). A driver that begins anew has zeroed its rings. DPDK's
    and QEMU's libraries for back ends go by the used rings too.
    """
    vrings = (
        vring if vring.base else replace(vring, base=used_index(start.memory, vring))
        for vring in start.vrings
    )
    return replace(start, vrings=tuple(vrings))


def with_call(start: Start, index: int, call: int | None) -> Start:
    """A start with another call of one ring."""
    return _changed(start, index, lambda vring: replace(vring, call=call))


def with_enabled(start: Start, index: int, enabled: bool) -> Start:
    """A start with one ring enabled, or not."""
    return _changed(start, index, lambda vring: replace(vring, is_enabled=enabled))


def _changed(start: Start, index: int, change: Callable[[GuestVring], GuestVring]) -> Start:
    vrings = (change(each) if each.index == index else each for each in start.vrings)
    return replace(start, vrings=tuple(vrings))


def suspended_at(
    device: ShadowedDevice, vrings: Sequence[GuestVring], suspended: Callable[[], None]
) -> dict[int, int] | None:
    """Where the queues of a device stand, which is suspended then; None where it does not tell.

    Args:
        device: that runs.
        vrings: its queues.
        suspended: called once it is.
    """
    try:
        device.suspend()
        suspended()
        return {each.index: device.base(each.index) for each in vrings}
    except Unsupported:
        return None


# --- rings ---


def control_vring(start: Start, index: int) -> GuestVring | None:
    """The guest's CVQ, which is this queue, where its VMM has set it up."""
    if Feature.CTRL_VQ not in start.features:
        return None
    return next((each for each in start.vrings if each.index == index), None)


def set_vring(device: ShadowedDevice, index: int, vring: shadowed_device.Vring) -> None:
    """Gives a device a data queue's ring.

    Raises:
        CannotStart: it is too large, or the device's driver cannot begin one where this stands.
        VdpadError: the device refuses it.
    """
    check_size(device, index, vring.ring.size)
    try:
        device.set_vring(index, vring)
    except Unsupported as error:
        if not vring.base:
            raise
        raise CannotStart(
            f"ring {index}: expected one that begins at 0, it goes on at {vring.base}, and the "
            f"device's driver cannot begin a ring there ({error}); reset the guest's device"
        ) from error


def as_device_has_it(vring: GuestVring) -> shadowed_device.Vring:
    """A ring in the guest's memory, for the device."""
    return shadowed_device.Vring(vring.addresses, vring.base, vring.kick, vring.call)


def check_size(device: ShadowedDevice, index: int, size: int) -> None:
    """Refuses a data queue's ring of so many entries.

    Raises:
        CannotStart: it is larger than the device takes.
    """
    largest = device.largest_ring(index)
    if size > largest:
        raise CannotStart(
            f"ring {index}: expected at most {largest} entries, which the device takes, got "
            f"{size}; give the VMM's device smaller queues"
        )


def check_descriptors(start: Start) -> None:
    """Refuses kicks and calls that are no eventfds. Does not sleep.

    Raises:
        NotAnEventfd: by the ring's index.
    """
    for vring in start.vrings:
        for fd, what in ((vring.kick, "kick"), (vring.call, "call")):
            if fd is not None:
                check_eventfd(fd, f"ring {vring.index}'s {what}")


def used_index(memory: GuestMemory, vring: GuestVring) -> int:
    """Where a ring stands whose device was reset and has worked in order: 0 … 65535."""
    at = vring.addresses.used + _INDEX_AT
    return int.from_bytes(memory.read(at, _INDEX_SIZE), "little")
