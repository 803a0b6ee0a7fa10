"""Commands through a CVQ of ours, one by one, also where the device misbehaves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.backend.inline import InlineQueue
from tests.support.devices import borrowed, config, has_event_idx, running
from tests.support.marks import with_and_without_event_idx
from vdpad.backend.faults import NotAnswered
from vdpad.backend.forwarder import Forwarder
from vdpad.queues.software.device import SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault
from vdpad.virtio.commands import ACK_ERR, ACK_NONE, ACK_OK, MacTableSet, VlanAdd

OK, ERR, NONE = (bytes((ack,)) for ack in (ACK_OK, ACK_ERR, ACK_NONE))


@asynccontextmanager
async def forwarding(
    event_idx: bool = True, start_index: int = 0, **faults: Fault
) -> AsyncIterator[tuple[SoftwareDevice, Forwarder]]:
    """To a device that does its first command so, or its second."""
    positions = {"first": 0, "second": 1}
    configured = config(
        event_idx=event_idx,
        start_index=start_index,
        faults={positions[name]: fault for name, fault in faults.items()},
    )
    async with running(configured) as device:
        with borrowed(device) as queue:
            assert has_event_idx(device) is event_idx
            yield device, Forwarder(queue, device.geometry, patience=0.05)


@with_and_without_event_idx
@pytest.mark.parametrize("start_index", [0, 65533])
async def test_each_command_has_its_answer(event_idx: bool, start_index: int) -> None:
    async with forwarding(event_idx, start_index) as (device, forwarder):
        for vid, answer in ((5, OK), (5, ERR), (6, OK), (4096, ERR), (7, OK), (8, OK)):
            assert await forwarder.forward(VlanAdd(vid).encode(), 1) == answer
        assert device.net.settings()["vlans"] == [5, 6, 7, 8]


async def test_what_is_no_command_goes_through_as_it_is() -> None:
    async with forwarding() as (_, forwarder):
        assert await forwarder.forward(b"\x77\x01anything", 1) == ERR


async def test_an_answer_may_be_longer_than_an_ack() -> None:
    queue = InlineQueue(lambda command: OK + command[::-1])
    forwarder = Forwarder(queue, queue.geometry)
    for _ in range(5):
        assert await forwarder.forward(b"\x08\x00data", 100) == OK + b"atad\x00\x08"
    assert await forwarder.forward(b"\x08\x00data", 3) == OK + b"at"
    assert queue.commands == [b"\x08\x00data"] * 6


async def test_a_command_too_large_for_the_ring_is_refused_without_the_device() -> None:
    queue = InlineQueue(lambda _: OK)
    forwarder = Forwarder(queue, queue.geometry)
    fits = bytes(forwarder.largest)
    assert await forwarder.forward(fits, 1) == OK
    assert await forwarder.forward(fits + b"\0", 1) == ERR
    assert queue.commands == [fits]


async def test_a_large_table_goes_through() -> None:
    table = MacTableSet((), tuple(bytes((1, *divmod(n, 256), 0, 0, 0)) for n in range(3000)))
    queue = InlineQueue(lambda _: OK)
    assert await Forwarder(queue, queue.geometry).forward(table.encode(), 1) == OK
    assert queue.commands == [table.encode()]


async def test_an_ack_that_was_never_written_is_none_that_says_ok() -> None:
    async with forwarding(second=Fault.STALE_ACK) as (_, forwarder):
        assert await forwarder.forward(VlanAdd(1).encode(), 1) == OK
        assert await forwarder.forward(VlanAdd(2).encode(), 1) == NONE
        assert await forwarder.forward(VlanAdd(3).encode(), 1) == OK


async def test_a_length_past_the_room_gives_no_more_than_the_room() -> None:
    async with forwarding(first=Fault.WRONG_LENGTH) as (_, forwarder):
        assert await forwarder.forward(VlanAdd(1).encode(), 1) == OK


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault.SILENCE, "within 0.05 s"),
        (Fault.ID_OUT_OF_RANGE, "descriptor 0"),
        (Fault.ID_NOT_IN_FLIGHT, "descriptor 0"),
        (Fault.RUN_AHEAD, "one command back"),
    ],
)
async def test_what_no_device_may_do(fault: Fault, why: str) -> None:
    async with forwarding(second=fault) as (_, forwarder):
        assert await forwarder.forward(VlanAdd(1).encode(), 1) == OK
        with pytest.raises(NotAnswered, match=why):
            await forwarder.forward(VlanAdd(2).encode(), 1)
