"""A software device with data queues, and the tests' own driver on them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.guest import Guest, GuestQueue
from tests.support.waiting import wait_until
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.packet_device import PacketDevice
from vdpad.queues.software.packet_offer import PACKET_FEATURES
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses

RECEIVE, TRANSMIT = 0, 1
HEADER = bytes(12)
BUFFER = 2048


@contextmanager
def mapped(device: PacketDevice, guest: Guest) -> Iterator[None]:
    """The guest's memory, with the device."""
    views = [(Region(each.start, each.size), memoryview(each.mapping)) for each in guest.regions]
    for region, view in views:
        device.map(region, view)
    try:
        yield
    finally:
        device.reset()
        for region, view in views:
            device.unmap(region)
            view.release()


def vring(queue: GuestQueue, base: int = 0) -> Vring:
    driver = queue.driver
    parts = (driver.descriptors, driver.available, driver.used)
    return Vring(SplitAddresses(driver.size, *parts), base, queue.kick, queue.call)


def bring_up(device: PacketDevice, guest: Guest, features: FeatureSet, base: int = 0) -> None:
    device.negotiate(features)
    for queue in guest.queues:
        queue.driver.in_order = Feature.IN_ORDER in features
        device.set_vring(queue.index, vring(queue, base))
    device.start()
    for queue in guest.queues:
        device.enable(queue.index)
        os.eventfd_write(queue.kick, 1)


@contextmanager
def running(
    device: PacketDevice, guest: Guest, left_out: FeatureSet = frozenset(), base: int = 0
) -> Iterator[None]:
    """A guest on a device that runs."""
    try:
        with mapped(device, guest):
            bring_up(device, guest, PACKET_FEATURES - left_out, base)
            yield
    finally:
        guest.close()


def received(guest: Guest, receive: int = RECEIVE) -> list[bytes]:
    """Packets that came, and their buffers are offered again."""
    queue = guest.queues[receive]
    packets = []
    for _, length, data in queue.collect():
        packets.append(data[:length])
        queue.send([], [BUFFER])
    return packets


def some(guest: Guest, number: int = 1) -> list[bytes]:
    """The next packets, so many."""
    got: list[bytes] = []

    def have_come() -> bool:
        got.extend(received(guest))
        return len(got) >= number

    wait_until(have_come)
    return got
