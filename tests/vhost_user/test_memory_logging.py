"""When a session logs: the messages of a migration, in QEMU's order and in others."""

import fcntl
import os

import pytest

from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import Served
from tests.vhost_user.front_end import ALL_SERVED, LOG_ALL, Memory, u64
from tests.vhost_user.log_file import log_file
from tests.vhost_user.test_session import DRIVER_OK, TAKEN, ready, running
from vdpad.vhost_user.faults import NotServed

COVERS = (Memory.GUEST + Memory.SIZE) >> 15
"""Bytes of a log of all of the front end's memory."""


async def give(served: Served, fd: int, size: int = COVERS) -> int:
    """SET_LOG_BASE."""
    return await served.front_end.number(page.SET_LOG_BASE, page.log_area(size), [fd])


async def test_a_migration_begins_and_is_cancelled(served: Served) -> None:
    """As QEMU does it: vhost_dev_set_log."""
    front_end = await running(served)
    at = Memory.USER
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        assert served.device.did == []
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        assert served.device.did == ["log on"]
        logged = page.addresses(0, at, at + 1024, at + 512, flags=1, log=Memory.GUEST + 1024)
        await front_end.done(page.SET_VRING_ADDR, logged)
        assert served.device.marks_in is not None
        served.device.marks_in.mark(Memory.GUEST, 1)
        assert os.pread(fd, 1, Memory.GUEST >> 15) == b"\1"
        await front_end.done(page.SET_FEATURES, u64(TAKEN))
        await front_end.done(page.SET_VRING_ADDR, page.addresses(0, at, at + 1024, at + 512))
    assert served.device.did == ["log on", "log off"]
    assert served.device.started is not None
    assert served.session.features == served.device.features


async def test_features_of_each_queue_pair_are_one_beginning(served: Served) -> None:
    """QEMU has a device for each pair, and sends features for each."""
    front_end = await running(served)
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        for _ in range(3):
            await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        for _ in range(3):
            await front_end.done(page.SET_FEATURES, u64(TAKEN))
    assert served.device.did == ["log on", "log off"]


async def test_another_log_takes_its_place(served: Served) -> None:
    """As where memory grows, and each time that cloud-hypervisor reads it."""
    front_end = await running(served)
    with log_file(COVERS) as first, log_file(2 * COVERS) as second:
        assert await give(served, first) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        assert await give(served, second, 2 * COVERS) == 0
        assert served.device.did == ["log on", "log on"]
        assert served.device.marks_in is not None
        served.device.marks_in.mark(Memory.GUEST, 1)
        assert os.pread(first, COVERS, 0).strip(b"\0") == b""
        assert os.pread(second, COVERS, 0).strip(b"\0") == b"\1"


async def test_a_driver_that_starts_during_a_migration(served: Served) -> None:
    """As QEMU does it in vhost_dev_start: LOG_ALL, memory and rings, and then the log."""
    front_end = await ready(served, TAKEN | LOG_ALL)
    assert served.device.did == []
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_STATUS, DRIVER_OK)
    assert served.device.did == ["log on", "start 0 1 2"]


async def test_it_goes_on_over_a_stop(served: Served) -> None:
    front_end = await running(served)
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        await front_end.base(0)
        await front_end.set_up(0)
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        await front_end.done(page.SET_STATUS, DRIVER_OK)
    assert served.device.did == ["log on", "stop", "start 0 1 2"]


async def test_a_reset_ends_it(served: Served) -> None:
    front_end = await running(served)
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
    await front_end.done(page.RESET_DEVICE)
    assert served.device.did == ["log on", "stop", "log off", "reset"]
    assert await front_end.acked(page.SET_FEATURES, u64(TAKEN)) == 0


@pytest.mark.parametrize("step", range(5))
async def test_a_front_end_that_breaks_off(served: Served, step: int) -> None:
    front_end = await running(served)
    with log_file(COVERS) as fd:
        steps = (
            lambda: give(served, fd),
            lambda: front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL)),
            lambda: give(served, fd),
            lambda: front_end.base(0),
        )
        for each in steps[:step]:
            await each()
        front_end.close()
        assert await served.end() is None
    assert served.device.started is None
    assert served.device.marks_in is None
    ends = ["stop", "log off"] if step >= 2 else ["stop"]
    assert [each for each in served.device.did if each in ends] == ends


async def test_what_the_device_says_at_the_end_keeps_no_log(served: Served) -> None:
    front_end = await running(served)
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
    served.device.unwilling = {"log"}
    front_end.close()
    assert "ask for log" in str(await served.end())


# --- what is offered ---


@pytest.mark.parametrize(
    ("protocol", "offered"),
    [(ALL_SERVED, False), (ALL_SERVED & ~page.CONFIG, True), (0, True), (page.CONFIG, False)],
)
async def test_log_all_is_offered_to_who_shows_no_whole_device(
    served: Served, protocol: int, offered: bool
) -> None:
    front_end = served.front_end
    assert await front_end.number(page.GET_FEATURES) & LOG_ALL
    await front_end.send(page.SET_PROTOCOL_FEATURES, u64(protocol))
    assert bool(await front_end.number(page.GET_FEATURES) & LOG_ALL) is offered


async def test_log_all_is_no_feature_of_the_guest(served: Served) -> None:
    front_end = await ready(served, TAKEN | LOG_ALL)
    await front_end.enable(0, 1, 2)
    assert served.device.started is not None
    assert served.device.started.features == served.device.features


# --- what is refused ---


async def test_a_log_that_is_none_and_then_log_all(served: Served) -> None:
    """QEMU looks at no answer to the first, and at that to the second."""
    front_end = await running(served)
    with log_file(COVERS, 0) as shrinks, log_file(COVERS) as fd:
        assert await give(served, shrinks) == 1
        assert await give(served, fd, COVERS + 1) == 1
        assert await give(served, fd, COVERS - 1) == 1
        area = page.log_area(COVERS)
        assert await front_end.number(page.SET_LOG_BASE, area) == 1
        assert await front_end.number(page.SET_LOG_BASE, u64(0), [fd]) == 1
    assert await front_end.acked(page.SET_FEATURES, u64(TAKEN | LOG_ALL)) != 0
    assert await front_end.acked(page.SET_FEATURES, u64(TAKEN)) == 0
    assert served.device.did == []
    assert len(served.refusals) == 6


@pytest.mark.parametrize("unwilling", [False, True])
async def test_another_log_that_is_none_ends_the_connection(
    served: Served, unwilling: bool
) -> None:
    """Its front end would read it all the same."""
    front_end = await running(served)
    with log_file(COVERS) as fd, log_file(COVERS, fcntl.F_SEAL_SHRINK if unwilling else 0) as other:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        if unwilling:
            served.device.unwilling = {"log"}
        await front_end.send(
            page.SET_LOG_BASE, page.log_area(COVERS), [other], flags=page.VERSION | page.NEED_REPLY
        )
        assert await front_end.ended() == b""
        error = await served.end()
    assert isinstance(error, NotServed) or unwilling
    assert "SET_LOG_BASE: expected" in served.refusals[0]


async def test_log_all_without_the_protocol_feature(served: Served) -> None:
    front_end = await ready(served, protocol=ALL_SERVED & ~page.LOG_SHMFD)
    assert await front_end.acked(page.SET_FEATURES, u64(TAKEN | LOG_ALL)) != 0
    assert "LOG_SHMFD" in served.refusals[0]


async def test_a_device_that_does_not_log(served: Served) -> None:
    front_end = await running(served)
    served.device.unwilling = {"log"}
    with log_file(COVERS) as fd:
        assert await give(served, fd) == 0
        assert await front_end.acked(page.SET_FEATURES, u64(TAKEN | LOG_ALL)) != 0
    served.device.unwilling = set()
    await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
    assert served.device.did == ["log on", "log on"]


async def test_memory_that_the_log_does_not_cover(served: Served) -> None:
    front_end = await running(served)
    behind = page.single(Memory.GUEST + Memory.SIZE, Memory.SIZE, Memory.USER + Memory.SIZE, 0)
    with log_file(COVERS) as fd, log_file(2 * COVERS) as larger:
        assert await give(served, fd) == 0
        await front_end.done(page.SET_FEATURES, u64(TAKEN | LOG_ALL))
        assert await front_end.acked(page.ADD_MEM_REG, behind, [front_end.memory.fd]) != 0
        whole = page.table(
            page.region(Memory.GUEST, Memory.SIZE, Memory.USER, 0),
            page.region(1 << 40, Memory.SIZE, 0, 0),
        )
        fds = [front_end.memory.fd] * 2
        assert await front_end.acked(page.SET_MEM_TABLE, whole, fds) != 0
        assert await give(served, larger, 2 * COVERS) == 0
        await front_end.done(page.ADD_MEM_REG, behind, [front_end.memory.fd])
