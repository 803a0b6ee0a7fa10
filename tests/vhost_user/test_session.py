"""A session's states: what comes when, what starts and stops the device, and what is told."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from tests.support.waiting import GUARD
from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import Served
from tests.vhost_user.front_end import ALL_SERVED, NEED_REPLY, REPLY, VERSION, FrontEnd, u64
from tests.vhost_user.recording_device import CONFIG, FEATURES
from vdpad.vhost_user.back_channel import BackChannel
from vdpad.vhost_user.session import Session, SessionState
from vdpad.virtio.bits import mask_of
from vdpad.virtio.features import Feature

pytestmark = pytest.mark.usefixtures("nothing_left")

PROTOCOL = page.NOT_A_FLAG_OF_OURS
TAKEN = PROTOCOL | mask_of(FEATURES)
WITHOUT_MQ = TAKEN & ~(1 << Feature.MQ)
WITHOUT_CVQ = WITHOUT_MQ & ~(1 << Feature.CTRL_VQ)
DRIVER_OK = u64(0xF)


async def ready(served: Served, features: int = TAKEN, protocol: int = ALL_SERVED) -> FrontEnd:
    """A front end whose three rings are set up, and none of them enabled."""
    front_end = served.front_end
    await front_end.negotiate(features, protocol)
    await front_end.share_memory()
    for index in range(3):
        await front_end.set_up(index)
    served.device.did.clear()
    return front_end


async def running(served: Served) -> FrontEnd:
    """A front end whose device runs."""
    front_end = await ready(served)
    await front_end.enable(0, 1, 2)
    served.device.did.clear()
    return front_end


# --- what is agreed upon ---


async def test_what_is_offered(served: Served) -> None:
    served.device.can_move = False
    assert await served.front_end.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
    offered = await served.front_end.number(page.GET_PROTOCOL_FEATURES)
    assert offered == ALL_SERVED & ~page.DEVICE_STATE
    served.device.can_announce = True
    offered = await served.front_end.number(page.GET_PROTOCOL_FEATURES)
    assert offered == (ALL_SERVED | page.RARP) & ~page.DEVICE_STATE


async def test_features_that_no_session_can_serve_are_left_out(served: Served) -> None:
    served.device.features |= {26, Feature.ACCESS_PLATFORM, Feature.GUEST_UDP_TUNNEL_GSO}
    session = Session(served.device, served.session.front_end, asyncio.Event().wait)
    assert session.offered == FEATURES
    await session.end()


async def test_features_that_were_not_offered(served: Served) -> None:
    served_to_it = ALL_SERVED & ~page.LOG_SHMFD
    await served.front_end.negotiate(TAKEN, served_to_it)
    for wrong in (1 << 26, 1 << Feature.ACCESS_PLATFORM, 1 << 63):
        assert await served.front_end.acked(page.SET_FEATURES, u64(TAKEN | wrong)) != 0
    assert served.session.features == FEATURES
    assert "LOG_ALL" in served.refusals[0] or "bit_26" in served.refusals[0]
    assert (
        await served.front_end.acked(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED | page.RARP)) != 0
    )


async def test_the_queues_and_the_slots(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    assert await served.front_end.number(page.GET_QUEUE_NUM) == 3
    assert await served.front_end.number(page.GET_MAX_MEM_SLOTS) == 509


@pytest.mark.parametrize(("offset", "size"), [(0, 24), (6, 2), (20, 8), (24, 232), (0, 256)])
async def test_config_space_and_zeros_behind_it(served: Served, offset: int, size: int) -> None:
    await served.front_end.negotiate(TAKEN)
    reply = await served.front_end.ask(page.GET_CONFIG, page.config(offset, bytes(size)))
    assert reply == page.config(offset, (CONFIG + bytes(256))[offset : offset + size])


async def test_config_space_is_no_larger(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    for offset, size in ((256, 1), (1, 256), ((1 << 32) - 1, 8)):
        asked = page.config(offset, bytes(size))
        assert await served.front_end.ask(page.GET_CONFIG, asked) == page.config(offset, b"")


async def test_config_space_is_written(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    await served.front_end.done(page.SET_CONFIG, page.config(0, b"\x52\x54"))
    await served.front_end.done(page.SET_CONFIG, page.config(6, b"\x01", flags=1))
    assert await served.front_end.acked(page.SET_CONFIG, page.config(0, b"\1", flags=2)) != 0
    assert served.device.did == ["set_config 0 5254 guest", "set_config 6 01 moving"]


async def test_status_and_that_the_device_needs_a_reset(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    await served.front_end.done(page.SET_STATUS, u64(11))
    assert await served.front_end.number(page.GET_STATUS) == 11
    served.device.needs_reset = True
    assert await served.front_end.number(page.GET_STATUS) == 11 | 64
    assert await served.front_end.acked(page.SET_STATUS, u64(256)) != 0


# --- an announcement ---

RARP = bytes.fromhex("5254001234560000")


async def announcing(served: Served) -> FrontEnd:
    """A front end that has taken RARP and set all up."""
    served.device.can_announce = True
    return await ready(served, protocol=ALL_SERVED | page.RARP)


async def test_a_guest_is_announced_while_its_device_runs(served: Served) -> None:
    front_end = await announcing(served)
    await front_end.enable(0, 1, 2)
    await front_end.done(page.SEND_RARP, RARP)
    assert served.device.did[-1] == "announce 525400123456"
    served.device.unwilling.add("announce")
    assert await front_end.acked(page.SEND_RARP, RARP) != 0


async def test_one_whose_device_starts_later_is_announced_then_and_once(served: Served) -> None:
    """As QEMU's, which is announced when it has come and before it goes on."""
    front_end = await announcing(served)
    await front_end.done(page.SEND_RARP, RARP)
    assert not served.device.announced
    await front_end.enable(0, 1, 2)
    assert served.device.did[-1] == "announce 525400123456"
    bases = [await front_end.base(index) for index in range(3)]
    assert bases == [0, 0, 0]
    for index in range(3):
        await front_end.set_up(index)
    await front_end.enable(0, 1, 2)
    assert served.device.starts[1:]
    assert served.device.announced == ["525400123456"]


async def test_one_that_is_reset_before_it_starts_is_not_announced(served: Served) -> None:
    front_end = await announcing(served)
    await front_end.done(page.SEND_RARP, RARP)
    await front_end.done(page.RESET_DEVICE)
    await front_end.done(page.SET_FEATURES, u64(TAKEN))
    for index in range(3):
        await front_end.set_up(index)
    await front_end.enable(0, 1, 2)
    assert served.device.started is not None
    assert not served.device.announced


async def test_a_device_that_does_not_announce_starts_all_the_same(served: Served) -> None:
    front_end = await announcing(served)
    served.device.unwilling.add("announce")
    await front_end.done(page.SEND_RARP, RARP)
    await front_end.enable(0, 1, 2)
    assert served.device.started is not None
    assert served.device.announced


@pytest.mark.parametrize("wrong", ["0000000000000000", "ffffffffffff0000", "01005e0000010000"])
async def test_an_address_of_nobody_or_of_many_is_not_announced(served: Served, wrong: str) -> None:
    front_end = await announcing(served)
    await front_end.enable(0, 1, 2)
    assert await front_end.acked(page.SEND_RARP, bytes.fromhex(wrong)) != 0
    assert "expected the address of one card" in served.refusals[-1]
    assert not served.device.announced


# --- which message when ---

_CALLS: dict[int, Callable[[FrontEnd], Awaitable[int]]] = {
    page.SET_VRING_NUM: lambda it: it.acked(page.SET_VRING_NUM, page.state(0, 8)),
    page.SET_VRING_BASE: lambda it: it.acked(page.SET_VRING_BASE, page.state(0, 8)),
    page.SET_VRING_KICK: lambda it: it.acked(page.SET_VRING_KICK, u64(0), [it.eventfd()]),
    page.SET_VRING_CALL: lambda it: it.acked(page.SET_VRING_CALL, u64(0), [it.eventfd()]),
    page.SET_VRING_ERR: lambda it: it.acked(page.SET_VRING_ERR, u64(0), [it.eventfd()]),
    page.SET_VRING_ENABLE: lambda it: it.acked(page.SET_VRING_ENABLE, page.state(0, 1)),
    page.SET_PROTOCOL_FEATURES: lambda it: it.acked(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED)),
    page.SET_FEATURES: lambda it: it.acked(page.SET_FEATURES, u64(WITHOUT_MQ)),
    page.SET_OWNER: lambda it: it.acked(page.SET_OWNER),
    page.RESET_OWNER: lambda it: it.acked(page.RESET_OWNER),
    page.SET_STATUS: lambda it: it.acked(page.SET_STATUS, u64(3)),
}
_REFUSED = {
    SessionState.NEW: {page.SET_VRING_NUM, page.SET_VRING_BASE, page.SET_VRING_KICK},
    SessionState.AGREED: set[int](),
    SessionState.RUNNING: {
        page.SET_VRING_NUM,
        page.SET_VRING_BASE,
        page.SET_VRING_KICK,
        page.SET_PROTOCOL_FEATURES,
        page.SET_FEATURES,
    },
}


@pytest.mark.parametrize("request_number", _CALLS)
@pytest.mark.parametrize("state", SessionState)
async def test_which_message_when(served: Served, state: SessionState, request_number: int) -> None:
    if state is SessionState.RUNNING:
        front_end = await running(served)
    else:
        front_end = await ready(served)
        if state is SessionState.NEW:
            await front_end.done(page.RESET_DEVICE)
    assert served.session.state is state
    refused = await _CALLS[request_number](front_end) != 0
    assert refused == (request_number in _REFUSED[state])
    # Whatever came of it, the session goes on.
    assert await front_end.number(page.GET_QUEUE_NUM) == 3


async def test_the_features_that_it_has_are_no_renegotiation(served: Served) -> None:
    """As a front end sends them when a migration begins or was cancelled."""
    front_end = await running(served)
    await front_end.done(page.SET_FEATURES, u64(TAKEN))
    assert await front_end.acked(page.SET_FEATURES, u64(TAKEN | 1 << 26)) != 0
    assert served.session.state is SessionState.RUNNING
    assert served.device.did == []


# --- starting ---


async def test_it_starts_when_the_last_queue_is_enabled(served: Served) -> None:
    front_end = await ready(served)
    await front_end.enable(0, 1)
    assert served.device.started is None
    await front_end.enable(2)
    start = served.device.started
    assert start is not None
    assert start.features == FEATURES
    assert start.is_fresh
    assert [vring.index for vring in start.vrings] == [0, 1, 2]
    assert all(vring.is_enabled for vring in start.vrings)
    for index, vring in enumerate(start.vrings):
        at = page.Memory.GUEST + index * 4096
        addresses = vring.addresses
        assert (addresses.descriptors, addresses.available, addresses.used) == (
            at,
            at + 512,
            at + 1024,
        )
        assert addresses.size == 16


@pytest.mark.parametrize(("features", "last"), [(WITHOUT_MQ, 2), (WITHOUT_CVQ, 1)])
async def test_which_queue_is_the_last_the_features_say(
    served: Served, features: int, last: int
) -> None:
    served.device.queues = 3
    front_end = await ready(served, features)
    for index in range(last):
        await front_end.enable(index)
        assert served.device.started is None
    await front_end.enable(last)
    assert served.device.started is not None


async def test_queues_that_are_enabled_before_they_are_set_up_start_by_status(
    served: Served,
) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.enable(0, 1)
    await front_end.enable(2, on=0)
    await front_end.share_memory()
    for index in range(2):
        await front_end.set_up(index, base=7)
    assert served.device.started is None
    await front_end.done(page.SET_STATUS, DRIVER_OK)
    start = served.device.started
    assert start is not None
    assert [(vring.index, vring.base, vring.is_enabled) for vring in start.vrings] == [
        (0, 7, True),
        (1, 7, True),
    ]
    assert not start.is_fresh


@pytest.mark.parametrize("requests", [(12, 13), (13, 12)], ids=["kick-call", "call-kick"])
async def test_a_front_end_that_cannot_say_start_starts_by_the_last_kick_and_call(
    served: Served, requests: tuple[int, int]
) -> None:
    """Without PROTOCOL_FEATURES, rings are always enabled."""
    front_end = served.front_end
    await front_end.negotiate(WITHOUT_CVQ & ~PROTOCOL, protocol=page.REPLY_ACK | page.SLOTS)
    await front_end.share_memory()
    await front_end.set_up(0)
    at = page.Memory.USER + 4096
    await front_end.done(page.SET_VRING_NUM, page.state(1, 16))
    await front_end.done(page.SET_VRING_ADDR, page.addresses(1, at, at + 1024, at + 512))
    await front_end.done(requests[0], u64(1), [front_end.eventfd()])
    assert served.device.started is None
    await front_end.done(requests[1], u64(1), [front_end.eventfd()])
    assert served.device.started is not None
    assert all(vring.is_enabled for vring in served.device.started.vrings)
    assert [vring.index for vring in served.device.started.vrings] == [0, 1]


async def test_what_is_missing_of_a_ring_keeps_it_out(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.share_memory()
    await front_end.set_up(0)
    await front_end.done(page.SET_VRING_NUM, page.state(1, 16))
    await front_end.done(page.SET_VRING_KICK, u64(1), [front_end.eventfd()])
    await front_end.enable(0, 1, 2)
    await front_end.done(page.SET_STATUS, DRIVER_OK)
    assert served.device.started is not None
    assert [vring.index for vring in served.device.started.vrings] == [0]


async def test_driver_ok_with_no_ring_starts_nothing(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    await served.front_end.done(page.SET_STATUS, DRIVER_OK)
    assert served.device.did == []
    assert served.session.state is SessionState.AGREED


async def test_driver_ok_before_features_is_refused(served: Served) -> None:
    await served.front_end.send(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED))
    assert await served.front_end.acked(page.SET_STATUS, DRIVER_OK) != 0
    assert await served.front_end.number(page.GET_STATUS) == 0


async def test_a_device_that_does_not_start(served: Served) -> None:
    front_end = await ready(served)
    served.device.unwilling = {"start"}
    await front_end.enable(0, 1)
    assert await front_end.acked(page.SET_VRING_ENABLE, page.state(2, 1)) != 0
    assert served.refusals == ["SET_VRING_ENABLE: expected nobody to ask for start, somebody did"]
    served.device.unwilling = set()
    await front_end.enable(2)
    assert served.device.started is not None


async def test_polled_rings_have_no_descriptors(served: Served) -> None:
    front_end = await ready(served)
    for request in (page.SET_VRING_KICK, page.SET_VRING_CALL):
        await front_end.done(request, u64(0 | page.NO_FD))
    await front_end.done(page.SET_VRING_ERR, u64(1), [front_end.eventfd()])
    await front_end.enable(0, 1, 2)
    assert served.device.started is not None
    polled, other, _ = served.device.started.vrings
    assert (polled.kick, polled.call, polled.error) == (None, None, None)
    assert None not in (other.kick, other.call, other.error)


# --- while it runs ---


async def test_rings_are_disabled_and_enabled(served: Served) -> None:
    front_end = await running(served)
    await front_end.enable(1, on=0)
    await front_end.enable(1)
    assert await front_end.acked(page.SET_VRING_ENABLE, page.state(1, 2)) != 0
    assert served.device.did == ["enable 1 0", "enable 1 1"]
    served.device.unwilling = {"enable"}
    assert await front_end.acked(page.SET_VRING_ENABLE, page.state(1, 0)) != 0
    assert [each.is_enabled for each in served.session.vrings] == [True, True, True]


async def test_a_call_is_replaced(served: Served) -> None:
    front_end = await running(served)
    await front_end.done(page.SET_VRING_CALL, u64(2), [front_end.eventfd()])
    assert served.device.did == ["set_call 2"]
    served.device.unwilling = {"set_call"}
    assert await front_end.acked(page.SET_VRING_CALL, u64(2), [front_end.eventfd()]) != 0


async def test_addresses_are_told_again_but_not_others(served: Served) -> None:
    front_end = await running(served)
    at = page.Memory.USER
    await front_end.done(page.SET_VRING_ADDR, page.addresses(0, at, at + 1024, at + 512))
    moved = page.addresses(0, at, at + 2048, at + 512)
    assert await front_end.acked(page.SET_VRING_ADDR, moved) != 0
    logged = page.addresses(0, at, at + 1024, at + 512, flags=2)
    assert await front_end.acked(page.SET_VRING_ADDR, logged) != 0
    assert served.device.did == []


# --- stopping ---


async def test_the_first_base_stops_it_and_all_are_at_hand(served: Served) -> None:
    front_end = await running(served)
    served.device.bases = {0: 300, 1: 65535, 2: 5}
    await front_end.enable(0, 1, 2, on=0)
    served.device.did.clear()
    assert [await front_end.base(index) for index in range(3)] == [300, 65535, 5]
    assert served.device.did == ["stop"]
    assert [each.is_started for each in served.session.vrings] == [False] * 3


async def test_a_pause_goes_on_and_a_reset_begins_anew(served: Served) -> None:
    front_end = await running(served)
    served.device.bases = {0: 300, 2: 5}
    bases = [await front_end.base(index) for index in range(3)]
    for index, base in enumerate(bases):
        await front_end.set_up(index, base)
    await front_end.enable(0, 1, 2)
    assert not served.device.starts[-1].is_fresh
    assert [vring.base for vring in served.device.starts[-1].vrings] == bases
    for index in range(3):
        await front_end.base(index)
        await front_end.set_up(index)
    await front_end.enable(0, 1, 2)
    assert served.device.starts[-1].is_fresh


async def test_a_ring_that_never_was_has_a_base(served: Served) -> None:
    await served.front_end.negotiate(TAKEN)
    assert await served.front_end.base(2) == 0
    assert served.device.did == []


async def test_status_0_stops_it_and_forgets_nothing(served: Served) -> None:
    front_end = await running(served)
    served.device.bases = {0: 9}
    await front_end.done(page.SET_STATUS, u64(0))
    assert served.device.did == ["stop"]
    assert await front_end.base(0) == 9
    assert await front_end.number(page.GET_STATUS) == 0
    assert served.session.state is SessionState.AGREED


async def test_reset_device_forgets_all_but_memory_and_descriptors(served: Served) -> None:
    front_end = await running(served)
    served.device.bases = {0: 9}
    await front_end.done(page.RESET_DEVICE)
    assert served.device.did == ["stop", "reset"]
    assert served.session.state is SessionState.NEW
    assert [(each.base, each.is_enabled, each.is_started) for each in served.session.vrings] == [
        (0, False, False)
    ] * 3
    assert len(served.device.mapped) == 1
    await front_end.done(page.SET_FEATURES, u64(TAKEN))
    for index in range(3):
        await front_end.set_up(index)
    await front_end.enable(0, 1, 2)
    assert served.device.starts[-1].is_fresh


async def test_a_device_that_fails_to_stop_is_stopped_all_the_same(served: Served) -> None:
    front_end = await running(served)
    served.device.unwilling = {"stop"}
    await front_end.send(page.GET_VRING_BASE, page.state(0, 0))
    assert await front_end.ended() == b""
    assert "GET_VRING_BASE was not served, and the connection closed" in str(await served.end())


# --- memory ---


async def test_memory_that_a_ring_lies_in_stays_while_the_device_runs(served: Served) -> None:
    front_end = await running(served)
    all_of_it = page.single(page.Memory.GUEST, page.Memory.SIZE, page.Memory.USER, 0)
    assert await front_end.acked(page.REM_MEM_REG, all_of_it) != 0
    assert await front_end.acked(page.SET_MEM_TABLE, page.table()) != 0
    assert "expected no ring there" in served.refusals[0]
    await front_end.base(0)
    served.device.did.clear()
    # Some send the file along.
    await front_end.done(page.REM_MEM_REG, all_of_it, [front_end.memory.fd])
    assert served.device.did == ["remove_memory"]
    assert await front_end.acked(page.REM_MEM_REG, all_of_it) != 0


async def test_memory_comes_while_the_device_runs(served: Served) -> None:
    front_end = await running(served)
    more = page.single(0, 4096, 1 << 20, 8192)
    await front_end.done(page.ADD_MEM_REG, more, [front_end.memory.fd])
    assert served.device.did == ["add_memory"]
    await front_end.done(page.REM_MEM_REG, more)
    assert served.device.did == ["add_memory", "remove_memory"]


async def test_what_is_added_twice_is_removed_twice(served: Served) -> None:
    """QEMU 7.2 does so for each queue pair."""
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    region = page.single(page.Memory.GUEST, page.Memory.SIZE, page.Memory.USER, 0)
    for _ in range(2):
        await front_end.share_memory()
    assert served.device.did == ["add_memory"]
    await front_end.done(page.REM_MEM_REG, region)
    assert len(served.device.mapped) == 1
    await front_end.done(page.REM_MEM_REG, region)
    assert served.device.mapped == []
    other = page.Memory()
    await front_end.share_memory()
    assert await front_end.acked(page.ADD_MEM_REG, region, [other.fd]) != 0
    other.close()


async def test_a_table_replaces_another_and_keeps_what_is_the_same(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    first, second, third = (page.region(n * 8192, 4096, n << 20, n * 4096) for n in range(3))
    memory = front_end.memory.fd
    await front_end.done(page.SET_MEM_TABLE, page.table(first, second), [memory] * 2)
    assert served.device.did == ["add_memory"] * 2
    kept = served.device.mapped[1]
    served.device.did.clear()
    await front_end.done(page.SET_MEM_TABLE, page.table(second, third), [memory] * 2)
    assert served.device.did == ["remove_memory", "add_memory"]
    assert served.device.mapped[0] is kept
    # The same numbers, but another file.
    other = page.Memory()
    await front_end.done(page.SET_MEM_TABLE, page.table(second), [other.fd])
    assert [mapped.file for mapped in served.device.mapped] != [kept.file]
    other.close()


async def test_a_table_that_cannot_be_changes_nothing(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.share_memory()
    first, far = page.region(0, 4096, 0, 0), page.region(1 << 20, 4096, 0, 1 << 30)
    memory, no_memory = front_end.memory.fd, front_end.eventfd()
    for table, fds in (
        (page.table(first, first), [memory] * 2),
        (page.table(first, far), [memory] * 2),
        (page.table(first), [no_memory]),
    ):
        assert await front_end.acked(page.SET_MEM_TABLE, table, fds) != 0
    assert [mapped.region.guest_address for mapped in served.device.mapped] == [page.Memory.GUEST]


@pytest.mark.parametrize("request_number", [page.ADD_MEM_REG, page.SET_MEM_TABLE])
async def test_memory_that_the_device_does_not_take(served: Served, request_number: int) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    served.device.unwilling = {"add_memory"}
    payload, fds = page.single(0, 4096, 0, 0), [front_end.memory.fd]
    if request_number == page.SET_MEM_TABLE:
        regions = [page.region(n * 4096, 4096, 0, 0) for n in range(2)]
        payload, fds = page.table(*regions), [front_end.memory.fd] * 2
    assert await front_end.acked(request_number, payload, fds) != 0
    assert list(served.session._regions.table) == []


# --- a device's state on its way ---


async def test_a_state_goes_out_and_in(served: Served) -> None:
    front_end = await running(served)
    served.device.state = b"what the guest had set"
    await front_end.base(0)
    await front_end.done(page.SET_STATUS, u64(0))
    reader, writer = socket.socketpair()
    saving = page.state(0, 0)
    assert await front_end.number(page.SET_DEVICE_STATE_FD, saving, [writer.fileno()]) == 256
    writer.close()
    with reader:
        reader.setblocking(False)
        async with asyncio.timeout(GUARD):
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(reader, 100) == b"what the guest had set"
            # The end is seen before anybody asks.
            assert await loop.sock_recv(reader, 100) == b""
    assert await front_end.number(page.CHECK_DEVICE_STATE) == 0
    reader, writer = socket.socketpair()
    loading = page.state(1, 0)
    assert await front_end.number(page.SET_DEVICE_STATE_FD, loading, [reader.fileno()]) == 256
    reader.close()
    writer.send(b"another")
    writer.close()
    assert await front_end.number(page.CHECK_DEVICE_STATE) == 0
    assert served.device.state == b"another"


async def test_a_state_comes_before_anything_else(served: Served) -> None:
    front_end = served.front_end
    await front_end.send(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED))
    reader, writer = socket.socketpair()
    writer.close()
    with reader:
        loading = page.state(1, 0)
        assert await front_end.number(page.SET_DEVICE_STATE_FD, loading, [reader.fileno()]) == 256
    assert await front_end.number(page.CHECK_DEVICE_STATE) == 0
    assert served.device.did == ["load"]


async def test_states_that_do_not_move(served: Served) -> None:
    front_end = await running(served)
    fds = [front_end.eventfd()]
    assert await front_end.number(page.SET_DEVICE_STATE_FD, page.state(0, 0), fds) == 257
    assert await front_end.number(page.CHECK_DEVICE_STATE) != 0
    await front_end.base(0)
    for direction, phase in ((2, 0), (0, 1)):
        wrong = page.state(direction, phase)
        assert await front_end.number(page.SET_DEVICE_STATE_FD, wrong, fds) == 257
    served.device.unwilling = {"save"}
    assert await front_end.number(page.SET_DEVICE_STATE_FD, page.state(0, 0), fds) == 256
    assert await front_end.number(page.CHECK_DEVICE_STATE) != 0
    assert await front_end.number(page.CHECK_DEVICE_STATE) != 0


async def test_a_transfer_that_nobody_asks_for_ends_with_the_next(served: Served) -> None:
    front_end = served.front_end
    await front_end.send(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED))
    served.device.gate = asyncio.Event()
    for _ in range(3):
        fds = [front_end.eventfd()]
        assert await front_end.number(page.SET_DEVICE_STATE_FD, page.state(0, 0), fds) == 256
    front_end.close()
    await served.end()


async def test_a_state_without_an_end_does_not_outlive_its_front_end(served: Served) -> None:
    front_end = served.front_end
    await front_end.send(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED))
    # Somebody else holds the other end.
    reader, writer = socket.socketpair()
    with reader, writer:
        loading = page.state(1, 0)
        assert await front_end.number(page.SET_DEVICE_STATE_FD, loading, [reader.fileno()]) == 256
        await front_end.send(page.CHECK_DEVICE_STATE)
        async with asyncio.timeout(GUARD):
            await served.device.until(lambda: served.device.waits_for_state)
        front_end.close()
        assert await served.end() is None
    assert "the front end is gone" in served.refusals[0]


# --- the order of replies ---


async def test_replies_come_in_the_order_of_requests(served: Served) -> None:
    front_end = await ready(served)
    served.device.gate = asyncio.Event()
    await front_end.enable(0, 1)
    flags = VERSION | NEED_REPLY
    await front_end.send(page.SET_VRING_ENABLE, page.state(2, 1), flags=flags)
    await front_end.send(page.GET_QUEUE_NUM)
    await front_end.send(page.SET_OWNER, flags=flags)
    await asyncio.sleep(0.02)
    served.device.gate.set()
    replies = [await front_end.receive() for _ in range(3)]
    assert [request for request, _, _ in replies] == [
        page.SET_VRING_ENABLE,
        page.GET_QUEUE_NUM,
        page.SET_OWNER,
    ]


async def test_replies_that_a_request_has_of_its_own_come_once(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.send(page.GET_STATUS, flags=VERSION | NEED_REPLY)
    await front_end.send(page.GET_QUEUE_NUM)
    assert (await front_end.receive())[0] == page.GET_STATUS
    assert (await front_end.receive())[0] == page.GET_QUEUE_NUM


async def test_without_reply_ack_nothing_is_answered_that_need_not_be(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN, protocol=ALL_SERVED & ~page.REPLY_ACK)
    await front_end.send(page.SET_OWNER, flags=VERSION | NEED_REPLY)
    assert await front_end.number(page.GET_QUEUE_NUM) == 3


# --- the back end's own channel ---


class Told:
    """The front end's side of the channel."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.front_end = FrontEnd(ours)

    async def give(self, front_end: FrontEnd) -> None:
        await front_end.done(page.SET_BACKEND_REQ_FD, b"", [self.theirs.fileno()])
        self.theirs.close()

    async def nothing(self) -> None:
        """Nothing has come for a while."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.front_end.receive(), 0.05)

    async def answer(self) -> None:
        await self.front_end.send(page.BACKEND_CONFIG_CHANGE_MSG, u64(0), flags=VERSION | REPLY)


async def test_a_change_is_told_and_the_next_once_that_was_answered(served: Served) -> None:
    front_end, told = await running(served), Told()
    await told.give(front_end)
    changed = (page.BACKEND_CONFIG_CHANGE_MSG, VERSION | NEED_REPLY, b"")
    served.session.config_changed()
    assert await told.front_end.receive() == changed
    # Before it answers, it looks.
    assert await front_end.ask(page.GET_CONFIG, page.config(0, bytes(24)))
    for _ in range(3):
        served.session.config_changed()
    await told.nothing()
    await told.answer()
    assert await told.front_end.receive() == changed
    await told.answer()
    await told.nothing()
    told.front_end.close()


async def test_without_reply_ack_a_change_is_told_and_that_is_all(served: Served) -> None:
    front_end, told = served.front_end, Told()
    await front_end.negotiate(TAKEN, protocol=ALL_SERVED & ~page.REPLY_ACK)
    await front_end.send(
        page.ADD_MEM_REG,
        page.single(page.Memory.GUEST, page.Memory.SIZE, page.Memory.USER, 0),
        [front_end.memory.fd],
    )
    at = page.Memory.USER
    await front_end.send(page.SET_VRING_NUM, page.state(0, 16))
    await front_end.send(page.SET_VRING_ADDR, page.addresses(0, at, at + 1024, at + 512))
    await front_end.send(page.SET_VRING_CALL, u64(0), [front_end.eventfd()])
    await front_end.send(page.SET_VRING_KICK, u64(0), [front_end.eventfd()])
    await front_end.send(page.SET_STATUS, DRIVER_OK)
    await front_end.send(page.SET_BACKEND_REQ_FD, b"", [told.theirs.fileno()])
    told.theirs.close()
    assert await front_end.number(page.GET_STATUS) == 15
    for _ in range(2):
        served.session.config_changed()
        assert await told.front_end.receive() == (page.BACKEND_CONFIG_CHANGE_MSG, VERSION, b"")
    told.front_end.close()


async def test_a_change_while_it_stands_still_is_told_when_it_runs_again(served: Served) -> None:
    front_end, told = await ready(served), Told()
    served.session.config_changed()
    await told.give(front_end)
    await told.nothing()
    await front_end.enable(0, 1, 2)
    assert (await told.front_end.receive())[0] == page.BACKEND_CONFIG_CHANGE_MSG
    served.session.config_changed()
    await front_end.base(0)
    await told.answer()
    await told.nothing()
    told.front_end.close()


async def test_another_channel_takes_the_first_one_s_place(served: Served) -> None:
    front_end, first, second = await running(served), Told(), Told()
    await first.give(front_end)
    await second.give(front_end)
    assert await first.front_end.ended() == b""
    served.session.config_changed()
    assert (await second.front_end.receive())[0] == page.BACKEND_CONFIG_CHANGE_MSG
    first.front_end.close()
    second.front_end.close()


@pytest.mark.parametrize("answer", [b"", b"\0" * 12, struct.pack("=III", 2, 5, 1 << 31), b"\xff"])
async def test_a_channel_that_is_broken_harms_nothing_else(served: Served, answer: bytes) -> None:
    front_end, told = await running(served), Told()
    await told.give(front_end)
    served.session.config_changed()
    await told.front_end.receive()
    if answer:
        await told.front_end.send_bytes(answer)
    told.front_end.close()
    await asyncio.sleep(0.01)
    served.session.config_changed()
    assert await front_end.number(page.GET_QUEUE_NUM) == 3


async def test_what_is_no_channel_is_refused(served: Served) -> None:
    front_end = await running(served)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for fd in (front_end.memory.fd, front_end.eventfd(), datagrams.fileno()):
        assert await front_end.acked(page.SET_BACKEND_REQ_FD, b"", [fd]) != 0
    datagrams.close()


async def test_a_channel_is_closed_also_where_its_closing_is_cancelled() -> None:
    ours, theirs = socket.socketpair()
    channel = BackChannel(ours.detach(), 0, reply_ack=True)
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    with theirs:
        assert theirs.recv(1, socket.MSG_DONTWAIT) == b""
