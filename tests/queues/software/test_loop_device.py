"""The software device that loops, with the tests' own driver on it."""

import asyncio
import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from tests.queues.software.driven import (
    BUFFER,
    HEADER,
    RECEIVE,
    TRANSMIT,
    mapped,
    received,
    running,
    some,
    vring,
)
from tests.support.descriptors import no_descriptor_left
from tests.support.guest import Guest
from tests.support.no_means import few_descriptors, no_threads
from tests.support.split_driver import Way
from tests.support.waiting import wait_until
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_FEATURES
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, replay
from vdpad.virtio.commands import MqPairsSet, VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses
from vdpad.wire.user_threads import NoThread


@pytest.fixture
def device() -> Iterator[LoopDevice]:
    with no_descriptor_left():
        device = LoopDevice()
        yield device
        device.close()


def pump(guest: Guest, packets: list[bytes], pair: int = 0) -> list[bytes]:
    """Sends packets as there is room, and returns what was received until as many came back."""
    receive, transmit = guest.queues[2 * pair], guest.queues[2 * pair + 1]
    got: list[bytes] = []
    left = list(packets)

    def all_back() -> bool:
        got.extend(received(guest, receive.index))
        transmit.collect()
        while left and transmit.driver.free >= 3:
            transmit.send([HEADER, left.pop(0)], [])
        return len(got) >= len(packets)

    wait_until(all_back, every=0.0005)
    return got


HASH = frozenset({Feature.HASH_REPORT})
PLAIN = frozenset({Feature.MRG_RXBUF, Feature.HASH_REPORT})


@pytest.mark.parametrize("without", [None, Feature.IN_ORDER, Feature.RING_EVENT_IDX])
@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())
def test_packets_come_back_in_their_order(
    device: LoopDevice, without: Feature | None, way: Way
) -> None:
    guest = Guest(2, event_idx=without is not Feature.RING_EVENT_IDX, way=way, base=65530)
    left_out = PLAIN | (frozenset() if without is None else {without})
    random = Random(1)
    packets = [random.randbytes(random.randrange(60, 1500)) for _ in range(400)]
    with running(device, guest, left_out, base=65530):
        for _ in range(4):
            guest.queues[RECEIVE].send([], [BUFFER])
        got = pump(guest, packets)
        assert [each[12:] for each in got] == packets
        assert {each[:12] for each in got} == {bytes(10) + b"\x01\x00"}
        assert device.packets == 400


def test_the_header_is_longer_where_hashes_are_reported(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, frozenset({Feature.MRG_RXBUF})):
        guest.queues[RECEIVE].send([], [BUFFER])
        guest.queues[TRANSMIT].send([bytes(20), b"packet"], [])
        got = some(guest)
        assert got == [bytes(10) + b"\x01\x00" + bytes(8) + b"packet"]


def test_a_packet_may_take_several_buffers_that_come_together(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, HASH):
        queue = guest.queues[RECEIVE]
        for size in (100, 200, 300):
            queue.send([], [size])
        packet = bytes(range(250)) + bytes(300)
        guest.queues[TRANSMIT].send([HEADER + packet], [])
        wait_until(lambda: queue.returned)
        found = [data[:length] for _, length, data in queue.collect()]
        assert [len(each) for each in found] == [100, 200, 262]
        assert b"".join(found) == bytes(10) + b"\x03\x00" + packet


def test_a_packet_waits_for_buffers_and_is_not_lost(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        for n in range(5):
            guest.queues[TRANSMIT].send([HEADER, b"packet %d" % n], [])
        guest.queues[RECEIVE].send([], [BUFFER])
        got = some(guest, 5)
        assert [each[12:] for each in got] == [b"packet %d" % n for n in range(5)]


def test_a_packet_that_no_buffer_takes_is_dropped(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        guest.queues[RECEIVE].send([], [64])
        guest.queues[TRANSMIT].send([HEADER, bytes(64)], [])
        guest.queues[TRANSMIT].send([HEADER, b"short"], [])
        got = some(guest)
        assert [each[12:] for each in got] == [b"short"]
        assert len(guest.queues[TRANSMIT].collect()) == 2


@pytest.mark.parametrize("way", [Way.DIRECT, Way.INDIRECT], ids=["direct", "indirect"])
def test_a_packet_that_no_buffers_of_a_full_ring_take_is_dropped(
    device: LoopDevice, way: Way
) -> None:
    """A chain of three descriptors takes as many of the ring's, one in an indirect table takes one.

    Five such chains leave one descriptor of the sixteen, in which none like them can be.
    """
    guest = Guest(2, way=way)
    with running(device, guest, HASH):
        receive, transmit = guest.queues
        chains = {Way.DIRECT: 5, Way.INDIRECT: 16}[way]
        for _ in range(chains - 1):
            receive.send([], [10, 10, 10])
        transmit.send([HEADER, bytes(30 * chains)], [])
        transmit.send([HEADER, b"short"], [])
        # One more could do; and a step comes behind a round of the step before it.
        assert [device.base(queue) for queue in (TRANSMIT, TRANSMIT)] == [0, 0]
        assert device.dropped == 0
        receive.send([], [10, 10, 10])
        assert [each[12:] for each in some(guest)] == [b"short"]
        assert (device.packets, device.dropped) == (1, 1)
        wait_until(lambda: transmit.returned == 2)


def test_pairs_do_not_mix(device: LoopDevice) -> None:
    guest = Guest(4)
    with running(device, guest, PLAIN):
        for pair in range(2):
            guest.queues[2 * pair].send([], [BUFFER])
        for pair in range(2):
            got = pump(guest, [b"pair %d" % pair] * 20, pair)
            assert {each[12:] for each in got} == {b"pair %d" % pair}


def test_a_driver_is_called_when_it_asks_for_it(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        guest.queues[RECEIVE].send([], [BUFFER])
        guest.queues[TRANSMIT].send([HEADER, b"packet"], [])
        wait_until(guest.queues[RECEIVE].calls)
        wait_until(guest.queues[TRANSMIT].calls)


def test_it_goes_on_where_it_was_suspended(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        guest.queues[RECEIVE].send([], [BUFFER])
        guest.queues[RECEIVE].send([], [BUFFER])
        pump(guest, [b"packet"] * 7)
        device.suspend()
        bases = [device.base(queue) for queue in (RECEIVE, TRANSMIT)]
        assert bases == [7, 7]
        device.reset()
        device.negotiate(PACKET_FEATURES - PLAIN)
        for queue, base in zip(guest.queues, bases, strict=True):
            device.set_vring(queue.index, vring(queue, base))
        device.start()
        for queue in guest.queues:
            device.enable(queue.index)
            os.eventfd_write(queue.kick, 1)
        assert [each[12:] for each in pump(guest, [b"again"] * 3)] == [b"again"] * 3


def test_it_is_resumed_with_a_used_ring_that_lies_elsewhere(device: LoopDevice) -> None:
    guest = Guest(2)
    region = device.spare_addresses(mmap.PAGESIZE)
    with running(device, guest, PLAIN), mmap.mmap(-1, region.size) as own:
        device.map(region, view := memoryview(own))
        guest.queues[RECEIVE].send([], [BUFFER])
        guest.queues[RECEIVE].send([], [BUFFER])
        pump(guest, [b"packet"] * 3)
        guest.queues[TRANSMIT].send([HEADER, b"held"], [])
        device.suspend()
        there = vring(guest.queues[RECEIVE], device.base(RECEIVE))
        used = guest.queues[RECEIVE].driver.used
        part = there.ring.parts()["used"]
        view[: part.size] = guest.queues[RECEIVE].driver.memory.peek(used, part.size)
        moved = moved_to(there, region.iova)
        device.move_vring(RECEIVE, moved, enabled=True)
        device.resume()
        before = device.packets
        guest.queues[TRANSMIT].send([HEADER, b"packet"], [])
        wait_until(lambda: device.packets > before)
        # The guest's ring stays as it was, and ours has what came.
        assert int.from_bytes(view[2:4], "little") > device.packets - 2
        device.reset()
        device.unmap(region)
        view.release()


def moved_to(there: Vring, used: int) -> Vring:
    """The same with its used ring elsewhere."""
    assert isinstance(there.ring, SplitAddresses)
    return replace(there, ring=replace(there.ring, used=used))


def test_only_a_device_that_is_suspended_is_resumed(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        with pytest.raises(VdpadError, match="expected a suspended device"):
            device.resume()
        with pytest.raises(VdpadError, match="expected a suspended device"):
            device.move_vring(RECEIVE, vring(guest.queues[RECEIVE]), enabled=True)


def test_a_queue_whose_ring_cannot_move_stays_where_it_is(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        there = vring(guest.queues[RECEIVE])
        nowhere = moved_to(there, 1 << 60)
        device.suspend()
        with pytest.raises(VdpadError, match=r"ring\.used"):
            device.move_vring(RECEIVE, nowhere, enabled=True)
        device.resume()
        guest.queues[RECEIVE].send([], [BUFFER])
        assert [each[12:] for each in pump(guest, [b"packet"])] == [b"packet"]
        # All of it is given back.
        device.reset()


def test_nothing_is_served_while_it_is_suspended(device: LoopDevice) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        device.suspend()
        guest.queues[RECEIVE].send([], [BUFFER])
        guest.queues[TRANSMIT].send([HEADER, b"packet"], [])
        os.eventfd_write(guest.queues[TRANSMIT].kick, 1)
        # A step comes behind the round that the doorbell has brought about.
        assert [device.base(queue) for queue in (RECEIVE, TRANSMIT)] == [0, 0]
        assert received(guest) == []


def test_a_queue_that_is_not_enabled_is_left_alone(device: LoopDevice) -> None:
    guest = Guest(2)
    try:
        with mapped(device, guest):
            device.negotiate(PACKET_FEATURES - PLAIN)
            for queue in guest.queues:
                device.set_vring(queue.index, vring(queue))
            device.start()
            guest.queues[RECEIVE].send([], [BUFFER])
            guest.queues[TRANSMIT].send([HEADER, b"early"], [])
            device.enable(TRANSMIT)
            assert received(guest) == []
            device.enable(RECEIVE)
            os.eventfd_write(guest.queues[TRANSMIT].kick, 1)
            got = some(guest)
            assert got[0][12:] == b"early"
    finally:
        guest.close()


def test_a_ring_without_a_doorbell_is_looked_at(device: LoopDevice) -> None:
    guest = Guest(2)
    try:
        with mapped(device, guest):
            device.negotiate(PACKET_FEATURES - PLAIN)
            for queue in guest.queues:
                unheard = vring(queue)
                device.set_vring(queue.index, Vring(unheard.ring))
            device.start()
            for queue in guest.queues:
                device.enable(queue.index)
            guest.queues[RECEIVE].send([], [BUFFER])
            assert [each[12:] for each in pump(guest, [b"unheard"])] == [b"unheard"]
    finally:
        guest.close()


def test_a_ring_that_makes_no_sense_breaks_it_and_it_says_so(device: LoopDevice) -> None:
    guest = Guest(2)
    changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    device.set_config_call(changed)
    with running(device, guest, PLAIN):
        assert DeviceStatus.NEEDS_RESET not in device.status()
        guest.queues[TRANSMIT].send([b"too short"], [])
        wait_until(lambda: DeviceStatus.NEEDS_RESET in device.status())
        assert os.eventfd_read(changed) == 1
        device.reset()
        assert device.status() == 0
    os.close(changed)


def test_an_interrupt_that_nobody_takes_does_not_keep_it_from_being_reset(
    device: LoopDevice,
) -> None:
    guest = Guest(2)
    with running(device, guest, PLAIN):
        for queue in guest.queues:
            os.eventfd_write(queue.call, (1 << 64) - 2)
        guest.queues[RECEIVE].send([], [BUFFER])
        pump(guest, [b"packet"] * 20)
        device.reset()


async def test_commands_come_by_a_ring_of_its_own(device: LoopDevice) -> None:
    device.negotiate(PACKET_FEATURES)
    assert device.control_queue_index == 2 * pull_config(device.config()).max_virtqueue_pairs
    device.start()
    queue = device.control_queue()
    program = encode(
        (MqPairsSet(3), VlanAdd(7), VlanAdd(9)), device.control_geometry, event_idx=True
    )
    deadline = asyncio.get_running_loop().time() + 60
    replayed = await replay(program, queue, deadline=deadline, poll_ns=0)
    queue.close()
    assert replayed.outcome is Outcome.RESTORED
    assert device.net.settings()["queue_pairs"] == 3
    assert device.net.settings()["vlans"] == [7, 9]


@pytest.mark.parametrize("where", ["not-negotiated", "no-such-queue", "twice", "no-memory"])
def test_what_it_cannot_do_it_refuses(device: LoopDevice, where: str) -> None:
    guest = Guest(1)
    try:
        ring = vring(guest.queues[0])
        if where != "not-negotiated":
            device.negotiate(PACKET_FEATURES)
        with mapped(device, guest) if where != "no-memory" else no_descriptor_left():
            if where == "twice":
                device.set_vring(0, ring)
            with pytest.raises(VdpadError):
                device.set_vring(8 if where == "no-such-queue" else 0, ring)
    finally:
        guest.close()


def test_features_that_it_does_not_offer(device: LoopDevice) -> None:
    with pytest.raises(VdpadError, match="RING_PACKED"):
        device.negotiate(PACKET_FEATURES | {Feature.RING_PACKED})


def test_memory_under_a_ring_stays_until_the_reset(device: LoopDevice) -> None:
    guest = Guest(1, regions=1)
    with running(device, guest):
        (region,) = guest.regions
        with pytest.raises(VdpadError, match="no ring there"):
            device.unmap(Region(region.start, region.size))


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4])
def test_a_device_that_has_not_the_descriptors_leaves_none(spare: int) -> None:
    with no_descriptor_left(), few_descriptors(spare), contextlib.suppress(OSError):
        LoopDevice().close()


def test_a_device_that_has_no_thread_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    no_threads(monkeypatch)
    with no_descriptor_left(), pytest.raises(NoThread):
        LoopDevice()
